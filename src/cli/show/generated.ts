import type {Generated} from '../../eval/generate.js';

/** Tokens a second after the first one; null where there is no second. */
function tokensPerSecond({tokens, seconds}: Generated): number | null {
  return tokens.length > 1 && seconds.tokens > 0 ? (tokens.length - 1) / seconds.tokens : null;
}

const ENDS = {
  stop: 'an end token came',
  string: 'a string of --stop came',
  length: 'no more were asked for',
  interrupted: 'interrupted',
} as const satisfies Record<Generated['end'], string>;

/** How a text came about, in one line. */
export function generatedText(generated: Generated): string {
  const {promptTokens, tokens, end, seconds} = generated;
  const rate = tokensPerSecond(generated);
  const speed = rate === null ? '' : ` at ${rate.toFixed(1)} tokens/s`;
  return `prompt: ${promptTokens.length} tokens in ${seconds.prompt.toFixed(2)} s; text: ${tokens.length} tokens${speed}; ${ENDS[end]}`;
}

/** The same for a program. */
export function generatedJson(generated: Generated): object {
  return {...generated, tokensPerSecond: tokensPerSecond(generated)};
}
