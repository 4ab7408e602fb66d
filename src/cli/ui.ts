import {createStatusLine, painter, type StatusLine, type TextStream} from '../report/terminal.js';

/** The streams and settings a command talks through; a test gives its own. */
export interface Io {
  /** Results. */
  readonly stdout: TextStream;
  /** Progress, notes, errors. */
  readonly stderr: TextStream;
  readonly env: NodeJS.ProcessEnv;
}

/** The options before every command. */
export interface GlobalFlags {
  readonly quiet?: true | undefined;
  /** False after `--no-color`. */
  readonly color: boolean;
}

/** How commands show things. */
export interface Ui {
  /** A result, on standard output. */
  print(text: string): void;
  /** A part of a result, on standard output, as it is. */
  write(text: string): void;
  /** What a person should know, on standard error; not said if `--quiet`. */
  note(text: string): void;
  /** Runs something long with a status line, which is silent if `--quiet`. */
  withStatus<T>(run: (status: StatusLine) => Promise<T>): Promise<T>;
  /** Paints text of standard output, where that shows colour. */
  paint: ReturnType<typeof painter>;
  /** The exit code if the command ends without an error: 0 unless said otherwise. */
  exitCode: number;
}

const SILENT: StatusLine = {update: () => undefined, print: () => undefined, finish: () => undefined};

/** A Ui whose flags are read when it is used: they are not parsed yet when commands are built. */
export function createUi({stdout, stderr, env}: Io, flags: () => GlobalFlags): Ui {
  return {
    print: (text) => void stdout.write(`${text}\n`),
    write: (text) => void stdout.write(text),
    note: (text) => {
      if (!flags().quiet) stderr.write(`${text}\n`);
    },
    withStatus: async (run) => {
      const status = flags().quiet ? SILENT : createStatusLine({stream: stderr});
      try {
        return await run(status);
      } finally {
        status.finish();
      }
    },
    paint: (style, text) => painter(stdout, flags().color ? env : {...env, NO_COLOR: '1'})(style, text),
    exitCode: 0,
  };
}
