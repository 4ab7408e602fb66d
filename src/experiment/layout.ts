import {join} from 'node:path';
import type {Config} from '../config/schema.js';

/** Where the parts of an experiment lie. */
interface Layout {
  /** `checkpoints/<name>` */
  readonly root: string;
  readonly shards: string;
  readonly profile: string;
}

/** The folders of an experiment. */
export function layoutOf({name}: Config): Layout {
  const root = join('checkpoints', name);
  return {root, shards: join(root, 'shards'), profile: join(root, 'profile')};
}
