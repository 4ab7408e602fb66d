import {basename, join, resolve} from 'node:path';
import {type ModelSource, openSource} from '../downcycle/model-source.js';
import {type Provenance, readProvenance} from '../downcycle/provenance.js';
import type {FloatDtype} from '../format/dtype.js';
import {commitOf} from '../hub/cache.js';
import {countParameters, moeLayouts, type ParameterCount} from '../model/architecture.js';
import {matrixDtype} from '../model/matrix-dtype.js';
import {saveModel} from '../model/save.js';
import {refuseExisting, writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {ModelError, UsageError} from '../util/errors.js';
import {formatPercent} from '../util/percent.js';
import {exportConfig, familyForm} from './config.js';
import {type Draft, draftOf} from './draft.js';
import {type Fidelity, measureFidelity} from './fidelity.js';
import {MANIFEST_FILE, type ManifestFields, renderManifest} from './manifest.js';
import {writeCard} from './model-card.js';
import type {TargetName} from './names.js';
import {applyTricks, type ExportPlan, type Refusal} from './plan.js';
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

/** Share of positions where rounding alone may have another expert chosen between near equals. */
const NEAR_EQUALS = 0.02;

/**
 * What a mixture can be exported to, the best first, and why not to others.
 *
 * @throws ModelError if the folder is damaged; UsageError if it holds no mixture.
 */
export async function exportPlans({
  model,
  dtype,
}: Pick<ExportOptions, 'model' | 'dtype'>): Promise<readonly (ExportPlan | Refusal)[]> {
  const source = await openSource(model);
  try {
    const {draft, stored} = await begin(source, dtype);
    return planAll(draft.architecture, stored);
  } finally {
    await source.folder.close();
  }
}

/**
 * Writes a mixture as a model of a family that transformers knows, with its tokenizer, a manifest and a card, and measures how
 * far it is from its source by running both. The engine must have been started.
 *
 * @throws UsageError if it is no mixture, the target cannot say it, or only nearly and that is not allowed; ModelError if the
 * folder is damaged, or an export that should be exact is not; EnvironmentError if `out` exists or the disk is full. Nothing
 * is left behind then.
 */
export async function exportModel(options: ExportOptions, onStage: OnExport = () => undefined): Promise<Exported> {
  const {model, out, dtype} = options;
  await refuseExisting(out);
  const source = await openSource(model);
  try {
    const {draft, stored} = await begin(source, dtype);
    const plan = choose(planAll(draft.architecture, stored), options);
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
        dtype: stored,
        read: ({path}) => made.read(path),
        tokenizerFrom: model,
      });
      onStage('comparing it with its source');
      const fidelity = await measureFidelity(model, part, text);
      requireExact(plan, fidelity, isNarrower(source, stored));
      const fields: ManifestFields = {
        target: plan.target,
        dtype: stored,
        source: await sourceRecord(source, model),
        command: commandOf(options, plan.target),
        rewritings: plan.tricks.map(({says}) => says),
        approximation: plan.approximation,
        routerFactors: factors,
        fidelity: {...fidelity, text: text.name},
      };
      await writeFileAtomic(join(part, MANIFEST_FILE), renderManifest(fields));
      await writeCard(part, {
        fields,
        model,
        name: basename(resolve(out)),
        architecture: made.architecture,
        provenance: await provenanceOf(model),
      });
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

/** A mixture without words that it does not need, and what its matrices are to be stored in. */
async function begin(
  {folder, architecture}: ModelSource,
  dtype: FloatDtype | undefined,
): Promise<{readonly draft: Draft; readonly stored: FloatDtype}> {
  if (moeLayouts(architecture).length === 0) {
    throw new UsageError(
      `${folder.path} has no experts: it is a ${architecture.family} model, which others run as it is.`,
      {
        hint: 'Make a mixture out of it with `downcycle convert` first.',
      },
    );
  }
  return {draft: await simplify(draftOf(folder, architecture)), stored: dtype ?? matrixDtype(folder, architecture)};
}

/** @throws UsageError if the target that is asked for cannot say the model, or none can. */
function choose(
  plans: readonly (ExportPlan | Refusal)[],
  {model, to = 'auto', allowsApproximate = false}: ExportOptions,
): ExportPlan {
  const plan = to === 'auto' ? plans.find(({kind}) => kind === 'plan') : plans.find(({target}) => target === to);
  if (!plan) {
    throw new UsageError(`No family of transformers can say ${model}: ${commonWhy(plans)}.`, {
      hint: remedyOf(plans) ?? 'Say --to <target> to read why not that one.',
    });
  }
  if (plan.kind === 'refusal') {
    throw new UsageError(`${model} cannot be exported to ${plan.target}: ${plan.why}.`, {
      hint: plan.remedy ?? 'Say --to auto to see what it can be exported to.',
    });
  }
  if (plan.approximation === null || allowsApproximate) return plan;
  throw new UsageError(
    `${to === 'auto' ? `No family says ${model} exactly; nearest is ${plan.target}` : `${plan.target} says ${model} only nearly`}: it ${plan.approximation}.`,
    {hint: 'Say --allow-approximate to export it so and read how far it is from its source.'},
  );
}

/** What keeps a model out of most families. */
function commonWhy(plans: readonly (ExportPlan | Refusal)[]): string {
  const reasons = plans.flatMap((plan) => (plan.kind === 'refusal' ? [plan.why] : []));
  const count = (why: string): number => reasons.filter((other) => other === why).length;
  return reasons.toSorted((a, b) => count(b) - count(a))[0] ?? 'there are none';
}

function remedyOf(plans: readonly (ExportPlan | Refusal)[]): string | null {
  const why = commonWhy(plans);
  const plan = plans.find((one) => one.kind === 'refusal' && one.why === why);
  return plan?.kind === 'refusal' ? plan.remedy : null;
}

/** Whether numbers of the source are rounded as they are stored, whatever is done to them. */
function isNarrower({folder, architecture}: ModelSource, stored: FloatDtype): boolean {
  return stored !== matrixDtype(folder, architecture) && (stored === 'BF16' || stored === 'F16');
}

/** @throws ModelError if an export that should be exact is not: nobody would look for the mistake here. */
function requireExact({approximation, target}: ExportPlan, fidelity: Fidelity, isRounded: boolean): void {
  if (approximation !== null || isRounded || fidelity.beyond <= NEAR_EQUALS) return;
  throw new ModelError(
    `The ${target} export should equal its source and does not: ${formatPercent(fidelity.beyond)} of ${fidelity.tokens} positions differ, by up to ${fidelity.maxLogitDifference.toExponential(1)}.`,
    {hint: 'This is a mistake of downcycle: please report it, with the config.json of the model.'},
  );
}

async function sourceRecord({folder, fingerprint}: ModelSource, model: string): Promise<ManifestFields['source']> {
  return {
    name: publicName(model),
    modelType: String(folder.config.model_type),
    fingerprint,
    revision: await commitOf(model),
  };
}

function commandOf({model, out, text, dtype, allowsApproximate = false}: ExportOptions, target: TargetName): string {
  const words = {F64: 'float64', F32: 'float32', F16: 'float16', BF16: 'bfloat16'} as const;
  return [
    `downcycle export ${publicName(model)} --to ${target} --out ${basename(resolve(out))}`,
    ...(text === undefined ? [] : [`--text ${basename(text)}`]),
    ...(dtype === undefined ? [] : [`--dtype ${words[dtype]}`]),
    ...(allowsApproximate ? ['--allow-approximate'] : []),
  ].join(' ');
}

/** Where the mixture came from; null if it has no record, or one that cannot be read. */
async function provenanceOf(model: string): Promise<Provenance | null> {
  return readProvenance(model).catch(() => null);
}
