import {basename, join, resolve} from 'node:path';
import {type OpenModel, openModel} from '../downcycle/model-source.js';
import {PROVENANCE_FILE, type Provenance, readProvenance} from '../downcycle/provenance.js';
import {DTYPE_WORDS, type FloatDtype} from '../format/dtype.js';
import {commitOf} from '../hub/cache.js';
import {countParameters, moeLayouts, type ParameterCount} from '../model/architecture.js';
import {modelFingerprint} from '../model/fingerprint.js';
import {matrixDtype, storesNarrower} from '../model/matrix-dtype.js';
import {saveModel} from '../model/save.js';
import {refuseExisting, writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {ModelError, UsageError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {formatPercent} from '../util/percent.js';
import {exportConfig, familyForm} from './config.js';
import {type Draft, draftOf} from './draft.js';
import {type Fidelity, measureFidelity} from './fidelity.js';
import {MANIFEST_FILE, type ManifestFields, renderManifest} from './manifest.js';
import {writeCard} from './model-card.js';
import type {TargetName} from './names.js';
import {applyTricks, type ExportPlan, type Refusal, type Storage} from './plan.js';
import {publicName} from './public-name.js';
import {routerFactors} from './router-factors.js';
import {simplify} from './simplify.js';
import {planAll} from './targets.js';
import {exportText} from './text.js';

/** What is exported, and to what. */
export interface ExportOptions {
  /** Folder of a mixture. */
  readonly model: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  /** Which family it becomes one of; default `auto`, the one that says it exactly and smallest. */
  readonly to?: 'auto' | TargetName | undefined;
  /** File that the export is measured on, and routers are made small by; tokens drawn at random if absent. */
  readonly text?: string | undefined;
  /** What matrices are stored in; as in the model if absent. */
  readonly dtype?: FloatDtype | undefined;
  /** Whether an export may compute something else than its source, if only a little. */
  readonly allowsApproximate?: boolean | undefined;
}

/** What was written. */
export interface Exported extends ManifestFields {
  readonly out: string;
  readonly parameters: ParameterCount;
  readonly sourceParameters: ParameterCount;
}

/** How an export goes on. */
export type OnExport = (stage: string) => void;

/**
 * What a mixture can be exported to, the best first, and why not to others.
 *
 * @throws ModelError if the folder is damaged; UsageError if it holds no mixture.
 */
export async function exportPlans({
  model,
  dtype,
}: Pick<ExportOptions, 'model' | 'dtype'>): Promise<readonly (ExportPlan | Refusal)[]> {
  const source = await openModel(model);
  try {
    const {draft, storage} = await begin(source, dtype);
    return planAll(draft.architecture, storage);
  } finally {
    await source.folder.close();
  }
}

/**
 * Writes a mixture as a model of a family that transformers knows, with its tokenizer, a manifest and a card, and measures how
 * far it is from its source by running both. The engine must have been started.
 *
 * @throws UsageError if it is no mixture, the target cannot say it, or only nearly and that is not allowed; ModelError if the
 * folder is damaged, or an export that should be exact is not; DataError if the text cannot be read or is too short;
 * EnvironmentError if `out` exists or the disk is full. Nothing is left behind then.
 */
export async function exportModel(options: ExportOptions, onStage: OnExport = () => undefined): Promise<Exported> {
  const {model, out, dtype} = options;
  await refuseExisting(out);
  const source = await openModel(model);
  try {
    const {draft, storage} = await begin(source, dtype);
    const plan = choose(planAll(draft.architecture, storage), options);
    const provenance = await provenanceOf(model);
    const text = await exportText(model, source.architecture, options.text);
    const measure = plan.tricks.find(({measures}) => measures)?.measures;
    if (measure) onStage('measuring routers');
    const factors = measure ? await routerFactors(source.folder, source.architecture, text, measure) : null;
    const made = familyForm(applyTricks(draft, plan.tricks, factors ?? []), plan.target);
    return await writeFolderAtomic(out, async (part) => {
      onStage(`writing ${plan.target}`);
      await saveModel(part, {
        architecture: made.architecture,
        config: exportConfig(source.folder.config),
        dtype: storage.dtype,
        read: ({path}) => made.read(path),
        tokenizerFrom: model,
      });
      onStage('comparing it with its source');
      const fidelity = await measureFidelity(model, part, text);
      requireExact(plan, fidelity);
      const fields: ManifestFields = {
        target: plan.target,
        dtype: storage.dtype,
        source: await sourceRecord(source, model),
        command: commandOf(options, plan.target),
        rewritings: plan.tricks.map(({says}) => says),
        kind: plan.fidelity,
        approximation: plan.approximation,
        routerFactors: factors,
        fidelity: {...fidelity, text: text.name},
      };
      await writeFileAtomic(join(part, MANIFEST_FILE), renderManifest(fields));
      const name = basename(resolve(out));
      await writeCard(part, {fields, model, name, architecture: made.architecture, provenance});
      return {
        ...fields,
        out,
        parameters: countParameters(made.architecture),
        sourceParameters: countParameters(source.architecture),
      };
    });
  } finally {
    await source.folder.close();
  }
}

/** A mixture without words that it does not need, and what its numbers are to be stored in. */
async function begin(
  {folder, architecture}: OpenModel,
  asked: FloatDtype | undefined,
): Promise<{readonly draft: Draft; readonly storage: Storage}> {
  if (moeLayouts(architecture).length === 0) {
    throw new UsageError(
      `${folder.path} has no experts: it is a ${architecture.family} model, which others run as it is.`,
      {
        hint: 'Make a mixture out of it with `downcycle convert` first.',
      },
    );
  }
  const dtype = asked ?? matrixDtype(folder, architecture);
  return {
    draft: await simplify(draftOf(folder, architecture)),
    storage: {dtype, isNarrower: storesNarrower(folder, architecture, dtype)},
  };
}

/** @throws UsageError if the target that is asked for cannot say the model, or none can. */
function choose(
  plans: readonly (ExportPlan | Refusal)[],
  {model, to = 'auto', dtype, allowsApproximate = false}: ExportOptions,
): ExportPlan {
  const plan = to === 'auto' ? plans.find(({kind}) => kind === 'plan') : plans.find(({target}) => target === to);
  if (!plan) {
    const {why, remedy} = nearestRefusal(plans);
    throw new UsageError(`No family of transformers can say ${model}: ${why}.`, {
      hint: remedy ?? 'Say --dry-run to read why not each of them.',
    });
  }
  if (plan.kind === 'refusal') {
    throw new UsageError(`${model} cannot be exported to ${plan.target}: ${plan.why}.`, {
      hint: plan.remedy ?? 'Say --dry-run to see what it can be exported to.',
    });
  }
  const isAskedFor = plan.fidelity === 'rounded' && dtype !== undefined;
  if (plan.fidelity === 'exact' || isAskedFor || allowsApproximate) return plan;
  const who =
    to === 'auto'
      ? `No family says ${model} exactly; nearest is ${plan.target}`
      : `${plan.target} says ${model} only nearly`;
  const wider = plan.fidelity === 'rounded' ? ', or --dtype float32 to round nothing' : '';
  throw new UsageError(`${who}: it ${plan.approximation}.`, {
    hint: `Say --allow-approximate to export it so and read how far it is from its source${wider}.`,
  });
}

/** That of a family whose attention is the model's: what keeps it out is worth knowing. */
function nearestRefusal(plans: readonly (ExportPlan | Refusal)[]): Pick<Refusal, 'why' | 'remedy'> {
  const refusals = plans.filter((plan) => plan.kind === 'refusal');
  const nearest = refusals.find(({hasAttention}) => hasAttention) ?? refusals[0];
  return nearest ?? {why: 'there are none', remedy: null};
}

/**
 * @throws ModelError if an export that should be exact is not: nobody would look for the mistake here. Where rounding has
 * another expert chosen between near equals, what comes after it in its window differs, too; hence half of all positions.
 */
function requireExact({fidelity: kind, target}: ExportPlan, fidelity: Fidelity): void {
  if (kind !== 'exact' || fidelity.beyond <= 0.5) return;
  throw new ModelError(
    `The ${target} export should equal its source and does not: ${formatPercent(fidelity.beyond)} of ${fidelity.tokens} positions differ, by up to ${fidelity.maxLogitDifference.toExponential(1)}.`,
    {hint: 'This is a mistake of downcycle: please report it, with the config.json of the model.'},
  );
}

async function sourceRecord({folder, architecture}: OpenModel, model: string): Promise<ManifestFields['source']> {
  return {
    name: publicName(model),
    modelType: String(folder.config.model_type),
    fingerprint: await modelFingerprint(folder, architecture),
    revision: await commitOf(model),
  };
}

function commandOf({model, out, text, dtype, allowsApproximate = false}: ExportOptions, target: TargetName): string {
  const quoted = (name: string): string => (/^[\w./@+-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`);
  return [
    `downcycle export ${quoted(publicName(model))} --to ${target} --out ${quoted(basename(resolve(out)))}`,
    ...(text === undefined ? [] : [`--text ${quoted(basename(text))}`]),
    ...(dtype === undefined ? [] : [`--dtype ${DTYPE_WORDS[dtype]}`]),
    ...(allowsApproximate ? ['--allow-approximate'] : []),
  ].join(' ');
}

/** Where the mixture came from; null if it has no record. @throws ModelError if it has one that cannot be read. */
async function provenanceOf(model: string): Promise<Provenance | null> {
  return (await exists(join(model, PROVENANCE_FILE))) ? readProvenance(model) : null;
}
