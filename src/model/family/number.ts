// What numbers of configs must be.
import {z} from 'zod';

/** A size or count. */
export const size = z.int('a whole number above 0 is needed').positive('a whole number above 0 is needed');
/** A factor, an epsilon or a base. */
export const positive = z.number('a number above 0 is needed').positive('a number above 0 is needed');
