import jsdoc from 'eslint-plugin-jsdoc';
import tseslint from 'typescript-eslint';

/** Which rooms of src each room may import. Imports point one way. */
const ROOMS = {
  util: [],
  format: ['util'],
  tokenizer: ['util', 'format'],
  hub: ['util'],
  data: ['util', 'format', 'tokenizer'],
  engine: ['util'],
  op: ['util', 'engine'],
  model: ['util', 'engine', 'op', 'format'],
  downcycle: ['util', 'engine', 'op', 'format', 'tokenizer', 'data', 'model', 'hub'],
  train: ['util', 'engine', 'op', 'format', 'tokenizer', 'data', 'model', 'hub'],
  eval: ['util', 'engine', 'op', 'format', 'tokenizer', 'data', 'model', 'hub'],
  report: ['util', 'format'],
  config: ['util', 'engine', 'data', 'downcycle', 'train', 'report'],
  experiment: [
    'util',
    'engine',
    'op',
    'format',
    'tokenizer',
    'data',
    'model',
    'hub',
    'downcycle',
    'train',
    'eval',
    'config',
    'report',
  ],
  export: ['util', 'engine', 'op', 'format', 'tokenizer', 'data', 'model', 'hub', 'downcycle', 'eval', 'report'],
};
/** The packages only one room may know. */
const OWNED = {
  koffi: 'engine',
  '@tensorflow/tfjs': 'engine',
  '@tensorflow/tfjs-node-gpu': 'engine',
  '@tensorflow/tfjs-backend-wasm': 'engine',
};

/** Files at `depth` folders below src see another room through exactly `depth` steps up. */
function roomRule(room, allowed, depth) {
  const rooms = [...allowed, room].join('/|');
  const owned = Object.entries(OWNED)
    .filter(([, owner]) => owner !== room)
    .map(([name, owner]) => ({regex: `^${name}(/|$)`, message: `Only src/${owner} knows ${name}.`}));
  return {
    files: [`src/${room}/${'*/'.repeat(depth - 1)}*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              regex: `^(\\.\\./){${depth}}(?!${rooms}/)[a-z-]+/`,
              message: `src/${room} may import only: ${[...allowed, room].join(', ')}.`,
            },
            ...owned,
          ],
        },
      ],
    },
  };
}

const roomRules = Object.entries(ROOMS).flatMap(([room, allowed]) =>
  [1, 2, 3].map((depth) => roomRule(room, allowed, depth)),
);

export default tseslint.config(
  {ignores: ['dist/**', 'node_modules/**', 'coverage/**', '**/*.mjs', 'eslint.config.js']},
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: {parserOptions: {project: './tsconfig.json', tsconfigRootDir: import.meta.dirname}},
    rules: {
      '@typescript-eslint/consistent-type-imports': 'error',
      // tfjs infers the rank it is asserted to have; spelling it as a type argument reads worse
      '@typescript-eslint/no-unnecessary-type-assertion': 'off',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', {considerDefaultExhaustiveForUnions: true}],
      '@typescript-eslint/no-misused-promises': 'error',
    },
  },
  {
    files: ['src/**/*.ts'],
    plugins: {jsdoc},
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      'max-lines': ['error', {max: 400, skipBlankLines: false}],
      'max-lines-per-function': ['error', {max: 50, skipComments: true}],
      'jsdoc/require-jsdoc': [
        'error',
        {publicOnly: true, require: {FunctionDeclaration: true, ClassDeclaration: true}},
      ],
    },
  },
  {files: ['test/**/*.ts'], rules: {'@typescript-eslint/require-await': 'off'}},
  ...roomRules,
);
