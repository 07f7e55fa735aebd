// The code interpreter through the official JavaScript client.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Sandbox } from '@e2b/code-interpreter'

let box
before(async () => {
  box = await Sandbox.create({ timeoutMs: 600_000, envs: { GLOBAL: 'g' } })
})
after(() => box?.kill())

const printed = (execution) => {
  assert.equal(execution.error, undefined)
  return execution.logs.stdout.join('')
}

test('a result is main and state survives', async () => {
  const execution = await box.runCode('x = 1; x')
  assert.equal(execution.text, '1')
  assert.equal(execution.results.length, 1)
  assert.ok(execution.results[0].isMainResult)
  const other = await Sandbox.connect(box.sandboxId)
  assert.equal((await other.runCode('x + 1')).text, '2')
})

test('output is streamed', async () => {
  const seen = []
  const execution = await box.runCode("print('a')", { onStdout: (m) => seen.push(m.line) })
  assert.deepEqual(seen, ['a\n'])
  assert.deepEqual(execution.logs.stdout, ['a\n'])
})

test('errors are told', async () => {
  const seen = []
  const execution = await box.runCode('xyz', { onError: (e) => seen.push(e.name) })
  assert.equal(execution.error.name, 'NameError')
  assert.deepEqual(seen, ['NameError'])
})

test('figures, tables and structures', async () => {
  const plot = 'import matplotlib.pyplot as plt\nplt.bar(["a"], [1])\nplt.show()\n"last"'
  const [figure, last] = (await box.runCode(plot)).results
  assert.ok(figure.png && figure.text && !figure.isMainResult)
  assert.deepEqual(figure.extra, {})
  assert.equal(figure.chart.type, 'bar')
  assert.ok(last.isMainResult && last.text === 'last')
  const [table] = (await box.runCode('import pandas as pd\npd.DataFrame({"a": [1, 2]})')).results
  assert.deepEqual(table.data, { a: [1, 2] })
  assert.ok(table.html && table.text && table.isMainResult)
  const [structure] = (await box.runCode('{"k": [1]}')).results
  assert.deepEqual([structure.json, structure.text], [{ k: [1] }, "{'k': [1]}"])
})

test('every language', async () => {
  const code = {
    javascript: "import { sep } from 'node:path'; console.log(await Promise.resolve(sep))",
    typescript: "const s: string = '/'; console.log(s)",
    bash: 'echo /',
    r: "cat('/\\n')",
    java: 'System.out.println("/");',
  }
  for (const [language, text] of Object.entries(code)) {
    assert.equal(printed(await box.runCode(text, { language })), '/\n', language)
  }
})

test('variables of a cell are gone after it', async () => {
  const show = 'import os; print(os.environ.get("GLOBAL"), os.environ.get("ONCE"))'
  assert.equal(printed(await box.runCode(show, { envs: { GLOBAL: 'h', ONCE: '1' } })), 'h 1\n')
  assert.equal(printed(await box.runCode(show)), 'g None\n')
})

test('contexts', async () => {
  const made = await box.createCodeContext({ cwd: '/tmp' })
  const listed = await box.listCodeContexts()
  assert.deepEqual(listed.slice(0, 2).map((each) => each.language), ['python', 'javascript'])
  assert.deepEqual(listed.at(-1), { id: made.id, language: 'python', cwd: '/tmp' })
  await box.runCode('here = 1', { context: made })
  assert.equal((await box.runCode('here')).error.name, 'NameError')
  await box.restartCodeContext(made)
  assert.equal((await box.runCode('here', { context: made })).error.name, 'NameError')
  assert.equal((await box.runCode('import os; os.getcwd()', { context: made })).text, '/tmp')
  await box.removeCodeContext(made)
  const left = await box.listCodeContexts()
  assert.ok(!left.some((each) => each.id === made.id))
  await assert.rejects(box.runCode('1', { context: made }), /not found/i)
})

test('a cell that is given up is interrupted', async () => {
  await assert.rejects(box.runCode('import time; time.sleep(300)', { timeoutMs: 1000 }))
  assert.equal((await box.runCode('1 + 1', { timeoutMs: 20_000 })).text, '2')
})
