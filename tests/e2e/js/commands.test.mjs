// Commands and terminals through the JavaScript SDK.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CommandExitError, InvalidArgumentError, TimeoutError } from 'e2b'
import { shared, until } from './support.mjs'

const held = shared()

test('output, callbacks and exit codes', async () => {
  let out = ''
  let err = ''
  const onStdout = (data) => void (out += data)
  const onStderr = (data) => void (err += data)
  const result = await held.sandbox.commands.run('echo one; echo two >&2', { onStdout, onStderr })
  assert.equal(result.exitCode, 0)
  assert.equal(result.stdout, 'one\n')
  assert.equal(out, 'one\n')
  assert.equal(err, 'two\n')
  await assert.rejects(held.sandbox.commands.run('echo bad >&2; exit 3'), (error) => {
    assert.ok(error instanceof CommandExitError)
    assert.equal(error.exitCode, 3)
    assert.equal(error.stderr, 'bad\n')
    return true
  })
})

test('users, directories and variables', async () => {
  const { commands } = held.sandbox
  assert.equal((await commands.run('whoami')).stdout, 'user\n')
  assert.equal((await commands.run('whoami', { user: 'root' })).stdout, 'root\n')
  assert.equal((await commands.run('pwd', { cwd: '/tmp' })).stdout, '/tmp\n')
  assert.equal((await commands.run('echo $X', { envs: { X: 'y' } })).stdout, 'y\n')
  assert.equal((await commands.run('sudo -n id -u')).stdout, '0\n')
  await assert.rejects(commands.run('pwd', { cwd: '/no/such' }), InvalidArgumentError)
})

test('a timeout kills the command', async () => {
  await assert.rejects(
    held.sandbox.commands.run('exec sleep 31.41', { timeoutMs: 1000 }),
    TimeoutError
  )
  await until(async () => (await held.sandbox.commands.list()).length === 0, 'it is gone', 5000)
})

test('a background command is listed, joined and killed', async () => {
  const { commands } = held.sandbox
  const handle = await commands.run('sleep 60', { background: true })
  assert.ok((await commands.list()).some((process) => process.pid === handle.pid))
  const joined = await commands.connect(handle.pid)
  const both = [handle, joined].map((each) => assert.rejects(each.wait(), CommandExitError))
  assert.equal(await commands.kill(handle.pid), true)
  await Promise.all(both)
  assert.equal(await commands.kill(handle.pid), false)
})

test('a command outlives its client', async () => {
  const { commands } = held.sandbox
  const handle = await commands.run('sleep 1; exit 7', { background: true, timeoutMs: 0 })
  await handle.disconnect()
  const joined = await commands.connect(handle.pid)
  await assert.rejects(joined.wait(), (error) => error.exitCode === 7)
})

test('standard input', async () => {
  const { commands } = held.sandbox
  const handle = await commands.run('cat', { background: true, stdin: true })
  await commands.sendStdin(handle.pid, 'one\n')
  await handle.sendStdin('two\n')
  await commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout, 'one\ntwo\n')
})

test('many commands at once', async () => {
  const numbers = [...Array(20).keys()]
  const results = await Promise.all(
    numbers.map((n) => held.sandbox.commands.run(`sleep 0.1; echo ${n}`))
  )
  assert.deepEqual(results.map((result) => result.stdout), numbers.map((n) => `${n}\n`))
})

test('ten megabytes arrive whole', async () => {
  let length = 0
  let last = ''
  const onStdout = (data) => {
    length += data.length
    last = (last + data).slice(-16)
  }
  const result = await held.sandbox.commands.run('seq 1 1500000', { onStdout })
  assert.equal(length, 10_888_896)
  assert.equal(result.stdout.length, length)
  assert.ok(last.endsWith('\n1500000\n'), last)
})

test('split characters are put together and broken ones replaced', async () => {
  const { commands } = held.sandbox
  const whole = await commands.run("printf '\\xe2\\x82'; sleep 0.2; printf '\\xac'")
  assert.equal(whole.stdout, '€')
  const broken = await commands.run("head -c 8191 /dev/zero | tr '\\0' a; printf '\\xe2'")
  assert.equal(broken.stdout, 'a'.repeat(8191) + '\ufffd')
})

test('a terminal', async () => {
  let seen = ''
  const text = new TextEncoder()
  const handle = await held.sandbox.pty.create({
    cols: 80,
    rows: 24,
    timeoutMs: 20_000,
    onData: (data) => void (seen += new TextDecoder().decode(data)),
  })
  const { pty } = held.sandbox
  await pty.sendInput(handle.pid, text.encode("echo co''ls=$(tput cols)\n"))
  await until(() => seen.includes('cols=80'), 'the first size')
  await pty.resize(handle.pid, { cols: 100, rows: 30 })
  await pty.sendInput(handle.pid, text.encode("echo co''ls=$(tput cols)\n"))
  await until(() => seen.includes('cols=100'), 'the second size')
  await pty.sendInput(handle.pid, text.encode('exit\n'))
  assert.equal((await handle.wait()).exitCode, 0)
})
