/**
 * Which numbers profiles, plans and fits give for the same options. Raise it when they change: profiles, starting
 * models and rows of conversions that older code left in an experiment's folder are then made again, but not runs.
 */
export const NUMBERS = 5;
