import {describe, expect, it} from 'vitest';
import {
  ConfigError,
  DataError,
  EnvironmentError,
  errorOf,
  ModelError,
  recordOf,
  UsageError,
} from '../../src/util/errors.js';

describe('an error told to another process', () => {
  const told = (error: unknown): Error =>
    errorOf(JSON.parse(JSON.stringify(recordOf(error))) as ReturnType<typeof recordOf>);

  it.each([UsageError, ConfigError, DataError, ModelError, EnvironmentError])(
    'keeps class, hint and stack: %o',
    (of) => {
      const error = new of('found', {hint: 'Do.'});
      const there = told(error);
      expect(there).toBeInstanceOf(of);
      expect(there).toMatchObject({name: error.name, message: 'found', hint: 'Do.', exitCode: error.exitCode});
      expect(there.stack).toBe(error.stack);
    },
  );

  it('has no hint where there was none, and no class that nobody acts on', () => {
    expect(told(new DataError('found'))).toMatchObject({hint: undefined});
    const plain = told(new TypeError('no function'));
    expect(plain.constructor).toBe(Error);
    expect(plain.message).toBe('no function');
    expect(told('words').message).toBe('words');
  });
});
