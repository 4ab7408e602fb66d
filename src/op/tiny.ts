/** What divisors are kept from falling below, or raised by: zeros over nothing stay zeros. */
export const TINY = 1e-30;
