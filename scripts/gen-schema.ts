// Writes configs/schema.json, which editors use to complete and check configs: npx tsx scripts/gen-schema.ts
import {configJsonSchema} from '../src/config/json-schema.js';
import {writeFileAtomic} from '../src/util/atomic.js';

await writeFileAtomic('configs/schema.json', `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
