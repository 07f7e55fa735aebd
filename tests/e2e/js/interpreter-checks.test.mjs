// Charts, displays, environment, trouble and pauses of the code interpreter, through the
// official JavaScript client.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Sandbox } from '@e2b/code-interpreter'

let box
before(async () => {
  box = await Sandbox.create({ timeoutMs: 600_000, envs: { GLOBAL: 'g "q" $HOME\nä 中' } })
})
after(() => box?.kill())

const printed = (execution) => {
  assert.equal(execution.error, undefined)
  return execution.logs.stdout.join('')
}

/** A sandbox for one test, which may ruin it. */
const withOwn = async (use) => {
  const own = await Sandbox.create({ timeoutMs: 300_000 })
  try {
    await use(own)
  } finally {
    await own.kill()
  }
}

test('streams are told apart and cells counted', async () => {
  const context = await box.createCodeContext()
  const seen = []
  const options = { context, onStderr: (m) => seen.push([m.error, m.line]) }
  const execution = await box.runCode("import sys; print('e', file=sys.stderr)", options)
  assert.equal(execution.logs.stderr.join(''), 'e\n')
  assert.deepEqual(seen, [[true, 'e\n']])
  const counts = [execution.executionCount]
  for (const code of ['oops', '1']) counts.push((await box.runCode(code, { context })).executionCount)
  assert.deepEqual(counts, [1, 2, 3])
  await box.removeCodeContext(context)
})

test('output arrives while the cell runs', async () => {
  const code = `
import os, time
print("first", flush=True)
while not os.path.exists("/tmp/heard-js"):
    time.sleep(0.01)
print("second")`
  const seen = []
  await box.runCode(code, {
    onStdout: async (message) => {
      seen.push(message.line)
      if (message.line === 'first\n') await box.files.write('/tmp/heard-js', '')
    },
  })
  assert.deepEqual(seen, ['first\n', 'second\n'])
})

test('syntax errors and nested errors', async () => {
  assert.equal((await box.runCode('x = = 1')).error.name, 'SyntaxError')
  const nested = 'def f():\n  def g():\n    raise ValueError("v")\n  g()\nf()'
  const { error } = await box.runCode(nested)
  assert.equal(error.name, 'ValueError')
  assert.match(error.traceback, /in f\(\)/)
  assert.ok(!error.traceback.includes('\x1b['))
  assert.equal((await box.runCode('await __import__("asyncio").sleep(0, 7)')).text, '7')
  assert.equal(printed(await box.runCode('!pwd')).trim(), '/home/user')
  assert.equal((await box.runCode('  y = 5\n  y')).text, '5')
})

const charts = {
  line: "ax.plot([1, 2], [3, 4], label='l')",
  scatter: "ax.scatter([1, 2], [3, 4], label='s')",
  bar: "ax.bar(['a', 'b'], [1, 2], label='g')",
  pie: "ax.pie([1, 3], labels=['a', 'b'])",
  box_and_whisker:
    "ax.boxplot([[1, 2, 3, 4, 5, 99], [70, 65, 60, 75]], patch_artist=True, tick_labels=['q', 'r'])",
}
const elements = {
  line: [{ label: 'l', points: [[1, 3], [2, 4]] }],
  scatter: [{ label: 's', points: [[1, 3], [2, 4]] }],
  bar: [{ label: 'a', group: 'g', value: 1 }, { label: 'b', group: 'g', value: 2 }],
  pie: [{ label: 'a', angle: 90, radius: 1 }, { label: 'b', angle: 270, radius: 1 }],
  box_and_whisker: [
    { label: 'q', min: 1, first_quartile: 2.25, median: 3.5, third_quartile: 4.75, max: 5, outliers: [99] },
    { label: 'r', min: 60, first_quartile: 63.75, median: 67.5, third_quartile: 71.25, max: 75, outliers: [] },
  ],
}
for (const [type, draw] of Object.entries(charts)) {
  test(`a chart: ${type}`, async () => {
    const code = `import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\n${draw}\nax.set_title('T')\nplt.show()`
    const { chart, png } = (await box.runCode(code)).results[0]
    assert.ok(png)
    assert.equal(chart.type, type)
    assert.equal(chart.title, 'T')
    assert.deepEqual(chart.elements, elements[type])
  })
}

test('scales, several axes and blank figures', async () => {
  const start = 'import matplotlib.pyplot as plt, datetime\n'
  const plot =
    'plt.plot([datetime.date(2024, 1, d) for d in (1, 2)], [1, 10])\nplt.yscale("log")\nplt.show()'
  const { chart } = (await box.runCode(start + plot)).results[0]
  assert.deepEqual([chart.x_scale, chart.y_scale], ['datetime', 'log'])
  const two = 'fig, (a, b) = plt.subplots(1, 2)\na.plot([1, 2])\nb.bar([1], [2])\nplt.show()'
  const both = (await box.runCode(start + two)).results[0].chart
  assert.equal(both.type, 'superchart')
  assert.deepEqual(both.elements.map((each) => each.type), ['line', 'bar'])
  const blank = (await box.runCode(start + 'plt.figure(); plt.show()')).results[0]
  assert.deepEqual(blank.chart ?? {}, {})
})

test('displays of every format', async () => {
  const code = (mime) => `from IPython.display import display\ndisplay({${JSON.stringify(mime)}: 'x'}, raw=True)`
  const fields = {
    'text/latex': 'latex',
    'text/markdown': 'markdown',
    'image/svg+xml': 'svg',
    'application/javascript': 'javascript',
    'application/pdf': 'pdf',
    'image/jpeg': 'jpeg',
  }
  for (const [mime, field] of Object.entries(fields)) {
    const result = (await box.runCode(code(mime))).results[0]
    assert.equal(result[field], 'x')
    assert.deepEqual([...result.formats()], [field])
  }
  const own = (await box.runCode(code('application/x-own'))).results[0]
  assert.deepEqual(own.raw.extra, { 'application/x-own': 'x' })
  const times = 'import pandas as pd\npd.DataFrame({"t": pd.to_datetime(["2024-01-01"])})'
  assert.match((await box.runCode(times)).results[0].data.t[0], /^2024-01-01T00:00:00/)
  assert.ok(!(await box.runCode('list(range(5000))')).text.includes('...'))
})

const show = {
  python: (name) => `import os; print(os.environ.get('${name}', ''))`,
  javascript: (name) => `console.log(process.env['${name}'] ?? '')`,
  bash: (name) => `printf "%s\\n" "$${name}"`,
  r: (name) => `cat(Sys.getenv('${name}'), '\\n', sep='')`,
  java: (name) =>
    `System.out.println(java.util.Objects.toString(System.getProperty("${name}"), ""));`,
}
const directory = {
  python: 'import os; print(os.getcwd())',
  javascript: 'console.log(process.cwd())',
  bash: 'pwd',
  r: 'cat(getwd())',
  java: 'System.out.println(System.getProperty("user.dir"));',
}
for (const language of Object.keys(show)) {
  test(`directory and variables in ${language}`, async () => {
    const run = async (code, envs) => printed(await box.runCode(code, { language, envs }))
    assert.equal((await run(directory[language])).trim(), '/home/user')
    const global = 'g "q" $HOME\nä 中\n'
    const odd = 'q\'"`$X\\n\nnew ✓'
    assert.equal(await run(show[language]('GLOBAL')), global)
    assert.equal(await run(show[language]('GLOBAL'), { GLOBAL: odd }), odd + '\n')
    assert.equal(await run(show[language]('GLOBAL')), global)
    assert.equal(await run(show[language]('ONCE'), { ONCE: '1' }), '1\n')
    assert.equal(await run(show[language]('ONCE')), '\n')
  })
}

test('unknown languages and contradictions are refused', async () => {
  await assert.rejects(box.runCode('1', { language: 'cobol' }), /500/)
  const [context] = await box.listCodeContexts()
  await assert.rejects(box.runCode('1', { language: 'python', context }))
  const listed = (await box.listCodeContexts()).map((each) => each.language)
  assert.deepEqual(listed.slice(0, 2), ['python', 'javascript'])
})

test('a kernel that is killed or runs out of memory is told and replaced', async () => {
  await withOwn(async (own) => {
    const killed = await own.runCode('import os; os.kill(os.getpid(), 9)')
    assert.equal(killed.error.value, 'Context was restarted: the kernel was killed')
    const hoard = "hoard = []\nwhile True: hoard.append(bytearray(b'x' * 50_000_000))"
    const { error } = await own.runCode(hoard)
    assert.equal(error.value, 'Context was restarted: the kernel ran out of memory and was killed')
    assert.equal((await own.runCode('2 + 2')).text, '4')
  })
})

test('a cell that ignores interrupts can be restarted', async () => {
  await withOwn(async (own) => {
    const context = await own.createCodeContext()
    const code = 'import signal, time\nsignal.signal(2, signal.SIG_IGN)\ntime.sleep(300)'
    await assert.rejects(own.runCode(code, { context, timeoutMs: 1000 }))
    await own.restartCodeContext(context)
    assert.equal((await own.runCode('1 + 1', { context })).text, '2')
  })
})

test('a sandbox that is killed mid-cell is told', async () => {
  await withOwn(async (own) => {
    const code = "print('up', flush=True)\nimport time; time.sleep(60)"
    await assert.rejects(own.runCode(code, { timeoutMs: 15_000, onStdout: () => own.kill() }), /killed/)
  })
})

test('many cells at once', async () => {
  await withOwn(async (own) => {
    const contexts = await Promise.all(Array.from({ length: 10 }, () => own.createCodeContext()))
    const cell = (n) => own.runCode(`v = ${n}; v`, { context: contexts[n % contexts.length] })
    const done = await Promise.all(Array.from({ length: 50 }, (_, n) => cell(n)))
    assert.deepEqual(done.map((each) => each.text), Array.from({ length: 50 }, (_, n) => `${n}`))
    await own.runCode('order = []')
    const step = "order.append('in'); import time; time.sleep(0.02); order.append('out')"
    await Promise.all(Array.from({ length: 20 }, () => own.runCode(step)))
    assert.equal((await own.runCode("order == ['in', 'out'] * 20")).text, 'True')
  })
})

test('a pause keeps variables', async () => {
  await withOwn(async (own) => {
    await own.runCode('x = [1]')
    await own.runCode('globalThis.z = 3', { language: 'js' })
    await own.pause()
    const again = await Sandbox.connect(own.sandboxId)
    assert.equal((await again.runCode('x')).text, '[1]')
    assert.equal((await again.runCode('globalThis.z', { language: 'js' })).text, '3')
  })
})

test('a private sandbox refuses strangers', async () => {
  const own = await Sandbox.create({ secure: true, network: { allowPublicTraffic: false } })
  try {
    assert.equal((await own.runCode('1 + 1')).text, '2')
    const headers = { 'e2b-sandbox-id': own.sandboxId, 'e2b-sandbox-port': '49999' }
    const url = process.env.E2B_SANDBOX_URL ?? process.env.E2B_API_URL
    const { status } = await fetch(`${url}/health`, { headers })
    assert.ok([401, 403].includes(status), status)
  } finally {
    await own.kill()
  }
})
