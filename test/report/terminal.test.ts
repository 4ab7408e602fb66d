import {describe, expect, it} from 'vitest';
import {displayWidth, stripColour, textTable} from '../../src/report/table.js';
import {createStatusLine, painter, type TextStream, trainStatus, wantsColour} from '../../src/report/terminal.js';

function recorder(options: {isTTY?: boolean; columns?: number} = {}): TextStream & {readonly text: () => string} {
  let written = '';
  return {...options, write: (text) => (written += text), text: () => written};
}

/** What a terminal shows after these bytes: `\r` with `ESC[2K` empties the line. */
function screen(written: string): string[] {
  const lines = [''];
  for (const part of written.replaceAll('\u001b[2K', '').split(/(\r|\n)/)) {
    if (part === '\n') lines.push('');
    else if (part === '\r') lines[lines.length - 1] = '';
    else lines[lines.length - 1] += part;
  }
  return lines;
}

describe('status line', () => {
  it('is one refreshed line on a terminal', () => {
    const stream = recorder({isTTY: true, columns: 40});
    let now = 0;
    const status = createStatusLine({stream, clock: () => now});
    status.update('step 1');
    now = 200;
    status.update('step 2');
    status.finish();
    expect(screen(stream.text())).toEqual(['step 2', '']);
  });

  it('is not redrawn more often than the interval, and ends on the last state', () => {
    const stream = recorder({isTTY: true, columns: 40});
    const status = createStatusLine({stream, clock: () => 0});
    for (let step = 1; step <= 50; step++) status.update(`step ${step}`);
    expect(stream.text()).not.toContain('step 2');
    status.finish();
    expect(screen(stream.text())).toEqual(['step 50', '']);
  });

  it('never wraps: a text longer than the terminal is cut', () => {
    const stream = recorder({isTTY: true, columns: 10});
    createStatusLine({stream, clock: () => 0}).update('0123456789abc');
    expect(screen(stream.text())).toEqual(['01234567…']);
  });

  it('makes room for lines that stay', () => {
    const stream = recorder({isTTY: true, columns: 40});
    const status = createStatusLine({stream, clock: () => 0});
    status.update('step 1');
    status.print('saved step-1');
    expect(screen(stream.text())).toEqual(['saved step-1', 'step 1']);
  });

  it('is plain lines at intervals elsewhere, the first and the last among them', () => {
    const stream = recorder();
    let now = 0;
    const status = createStatusLine({stream, clock: () => now, lineMs: 10_000});
    for (let step = 1; step <= 25; step++, now += 1000) status.update(`step ${step}`);
    status.finish();
    expect(stream.text()).toBe('step 1\nstep 11\nstep 21\nstep 25\n');
  });

  it('says nothing when there was nothing to say', () => {
    const stream = recorder({isTTY: true});
    createStatusLine({stream}).finish();
    expect(stream.text()).toBe('');
  });
});

describe('trainStatus', () => {
  const progress = {
    label: 'downcycle',
    step: 40,
    numSteps: 120,
    loss: 3.4124,
    tokensPerSecond: 45_600,
    secondsLeft: 80,
  };

  it('tells step, loss, speed and time left', () => {
    expect(trainStatus(progress)).toBe('downcycle  step  40/120  loss 3.412  45.6k tok/s  1m 20s left');
  });

  it('says done at the last step', () => {
    expect(trainStatus({...progress, step: 120})).toMatch(/120\/120 .* done$/);
  });
});

describe('colour', () => {
  it('is used on terminals alone, and never against NO_COLOR', () => {
    expect(wantsColour({isTTY: true, write: () => true}, {})).toBe(true);
    expect(wantsColour({isTTY: true, write: () => true}, {NO_COLOR: '1'})).toBe(false);
    expect(wantsColour({isTTY: true, write: () => true}, {TERM: 'dumb'})).toBe(false);
    expect(wantsColour({write: () => true}, {})).toBe(false);
  });

  it('wraps the text and nothing else', () => {
    const painted = painter({isTTY: true, write: () => true}, {})('bold', 'loss');
    expect(painted).not.toBe('loss');
    expect(stripColour(painted)).toBe('loss');
    expect(painter({write: () => true}, {})('bold', 'loss')).toBe('loss');
  });
});

describe('textTable', () => {
  const columns = [
    {title: 'arm', align: 'left'},
    {title: 'last\nloss', align: 'right'},
  ] as const;

  it('aligns words left and numbers right under titles of several lines', () => {
    const table = textTable(columns, [
      ['downcycle', '3.4'],
      ['scratch', '12.25'],
    ]);
    expect(table).toBe(
      ['            last', 'arm         loss', '---------  -----', 'downcycle    3.4', 'scratch    12.25'].join('\n'),
    );
  });

  it('counts wide letters twice and colour codes not at all', () => {
    expect(displayWidth('专家')).toBe(4);
    expect(displayWidth('\u001b[1mab\u001b[22m')).toBe(2);
    expect(displayWidth('e\u0301')).toBe(1);
  });
});
