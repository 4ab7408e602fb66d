/**
 * Which numbers profiles, plans and fits give for the same options. Raise it when they change: what older code left in an
 * experiment's folder is then made again.
 */
export const NUMBERS = 3;
