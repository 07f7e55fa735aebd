// Much output, trouble and pauses of the code interpreter, through the official JavaScript
// client.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import { Sandbox } from '@e2b/code-interpreter'
import { until } from './support.mjs'

/** A sandbox for one test, which may ruin it. */
const withOwn = async (use) => {
  const own = await Sandbox.create({ timeoutMs: 300_000 })
  try {
    await use(own)
  } finally {
    await own.kill()
  }
}

test('a flood of output is complete and in order', async () => {
  await withOwn(async (own) => {
    const count = 100_000
    const code = `for i in range(${count}):\n  print(f'{i:06d}' + 'x' * 993)\nprint('end')`
    const execution = await own.runCode(code, { timeoutMs: 120_000 })
    assert.equal(execution.error, undefined)
    const lines = execution.logs.stdout.join('').split('\n')
    assert.deepEqual([lines.length, lines.pop(), lines.pop()], [count + 2, '', 'end'])
    const fill = 'x'.repeat(993)
    const lost = lines.findIndex((line, n) => line !== String(n).padStart(6, '0') + fill)
    assert.equal(lost, -1)
    // Whoever keeps the output somewhere on its way grows by it.
    const show = 'grep VmHWM /proc/$(pgrep -o -x interpreter)/status | tr -dc 0-9'
    const { stdout } = await own.commands.run(show, { user: 'root' })
    assert.ok(Number(stdout) < 32 << 10, `${stdout} KiB in the service`)
  })
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

test('a client that is killed frees the context', async () => {
  await withOwn(async (own) => {
    const code = `
import { Sandbox } from '@e2b/code-interpreter'
const box = await Sandbox.connect('${own.sandboxId}')
const cell = 'print(1, flush=True); import time; time.sleep(300)'
await box.runCode(cell, { onStdout: () => console.log('up') })`
    const options = ['--input-type=module', '--eval', code]
    const cwd = import.meta.dirname
    const client = spawn(process.execPath, options, { cwd, stdio: ['ignore', 'pipe', 'inherit'] })
    const [heard] = await once(client.stdout, 'data')
    assert.equal(String(heard), 'up\n')
    client.kill('SIGKILL')
    assert.equal((await own.runCode('1 + 1', { timeoutMs: 20_000 })).text, '2')
  })
})

test('a killed service comes back', async () => {
  await withOwn(async (own) => {
    await own.runCode('1')
    await own.commands.run('pkill -9 -x interpreter', { user: 'root' })
    const cell = () => own.runCode('3 + 3', { timeoutMs: 20_000 }).catch(() => undefined)
    const answered = await until(cell, 'an answer', 30_000)
    assert.equal(answered.text, '6')
  })
})

test('a sandbox is found, shared and ended', async () => {
  const name = randomUUID()
  const own = await Sandbox.create({ timeoutMs: 120_000, envs: { A: '1' }, metadata: { test: name } })
  try {
    await own.runCode('x = 5')
    const other = await Sandbox.connect(own.sandboxId)
    assert.equal((await other.runCode("import os; (x, os.environ['A'])")).text, "(5, '1')")
    const found = await Sandbox.list({ query: { metadata: { test: name } } }).nextItems()
    assert.deepEqual(found.map((each) => each.sandboxId), [own.sandboxId])
  } finally {
    assert.ok(await own.kill())
  }
  assert.ok(!(await own.isRunning()))
})
