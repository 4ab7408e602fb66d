/**
 * Which numbers profiles, plans and fits give for the same options. Raise it when they change by more than rounding:
 * profiles, starting models and rows of conversions that older code left in an experiment's folder are then made again, and
 * runs that began from a model that is another now do not go on.
 */
export const NUMBERS = 4;
