/** What lengths are kept from falling below where something is divided by them: a row of zeros stays one. */
export const TINY = 1e-30;
