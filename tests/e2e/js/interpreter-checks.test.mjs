// Charts, displays and the environment of the code interpreter's cells, through the official
// JavaScript client.
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

test('objects choose their own forms', async () => {
  const code = `
class Custom:
    def __repr__(self): return 'a custom object'
    def _repr_html_(self): return '<b>h</b>'
    def _repr_e2b_data_(self): return {'column': [1, 2]}
    def _repr_e2b_chart_(self):
        return {'type': 'pie', 'title': 'T', 'elements': [{'label': 'a', 'angle': 360, 'radius': 1}]}
Custom()`
  const [result] = (await box.runCode(code)).results
  assert.deepEqual([result.text, result.html], ['a custom object', '<b>h</b>'])
  assert.deepEqual(result.data, { column: [1, 2] })
  assert.equal(result.chart.type, 'pie')
  assert.deepEqual(result.chart.elements, [{ label: 'a', angle: 360, radius: 1 }])
  assert.deepEqual(result.extra, {})
})

test('plotting libraries give html and Pillow shows what it saves', async () => {
  const plotly = 'import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1]))'
  assert.ok((await box.runCode(plotly)).results[0].html)
  const bokeh = `
from bokeh.io import output_notebook, show
from bokeh.plotting import figure
output_notebook(hide_banner=True)
p = figure()
p.line([1, 2], [3, 4])
show(p)`
  assert.ok((await box.runCode(bokeh)).results.some((result) => result.html))
  const pillow = "from PIL import Image\nImage.new('RGB', (2, 2)).save('/tmp/p.png')"
  assert.ok((await box.runCode(pillow)).results[0].png)
  assert.ok(await box.files.exists('/tmp/p.png'))
})

test('variables leave line numbers alone', async () => {
  const options = { envs: { A: '1', B: '2' } }
  const { error } = await box.runCode('a = 1\nraise ValueError()', options)
  assert.match(error.traceback, /line 2/)
})

test('values of JavaScript, R and Java', async () => {
  const modules = "import { basename } from 'node:path'\nconst v = await Promise.resolve(basename('/a/b'))\nv"
  assert.equal((await box.runCode(modules, { language: 'js' })).text, 'b')
  const hello = await box.runCode('print("Hello, World!")', { language: 'r' })
  assert.equal(printed(hello), '[1] "Hello, World!"\n')
  assert.equal((await box.runCode('1 + 1', { language: 'java' })).text, '2')
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
