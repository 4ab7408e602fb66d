import {z} from 'zod';

/** The `report` section of a config: how the page and the charts of a comparison are drawn. */
export const reportSchema = z
  .strictObject({
    out: z.string().min(1).optional().describe('Folder of the report; beside the runs when absent.'),
    smoothing: z
      .number()
      .min(0)
      .lt(1)
      .default(0.9)
      .describe('Weight of the past in the moving average of the training loss, 0 (raw) to below 1.'),
    x: z
      .enum(['tokens', 'flops', 'steps'])
      .default('tokens')
      .describe('What the losses are drawn against: training tokens, floating point operations or optimizer steps.'),
  })
  .describe('The report of a comparison.');

/** A checked `report` section. */
export type ReportOptions = z.infer<typeof reportSchema>;

/** What the horizontal axis shows. */
export type XAxis = ReportOptions['x'];
