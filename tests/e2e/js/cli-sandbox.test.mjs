// Sandboxes through the official command line.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { API_KEY, API_URL, SANDBOX_URL, until } from './support.mjs'

const CLI = fileURLToPath(new URL('./node_modules/.bin/e2b', import.meta.url))
let home, sandbox

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'warren-cli-sandbox-'))
  const made = await e2b(['sandbox', 'create', '-d', '--timeout', '600'])
  assert.equal(made.code, 0, made.stderr)
  sandbox = made.stdout.trim()
  assert.match(sandbox, /^i[a-z0-9]{20}$/)
})

after(async () => {
  await e2b(['sandbox', 'kill', sandbox])
  await rm(home, { recursive: true, force: true })
})

function environment(more = {}) {
  return {
    PATH: process.env.PATH,
    HOME: home,
    E2B_API_KEY: API_KEY,
    E2B_API_URL: API_URL,
    E2B_SANDBOX_URL: SANDBOX_URL,
    NO_UPDATE_NOTIFIER: '1',
    ...more,
  }
}

/** Runs the program; never rejects. Without input its standard input is no pipe. */
function e2b(args, { input, env = {} } = {}) {
  if (input === undefined) {
    return new Promise((resolve) => {
      const child = spawn(process.execPath, [CLI, ...args], {
        env: environment(env),
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: 60_000,
      })
      const out = [[], []]
      child.stdout.on('data', (bytes) => out[0].push(bytes))
      child.stderr.on('data', (bytes) => out[1].push(bytes))
      child.on('close', (code) => {
        const [stdout, stderr] = out.map((parts) => Buffer.concat(parts).toString())
        resolve({ code, stdout, stderr })
      })
    })
  }
  return new Promise((resolve) => {
    const options = { env: environment(env), timeout: 60_000, maxBuffer: 64 << 20 }
    const child = execFile(process.execPath, [CLI, ...args], options, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, stdout, stderr })
    )
    child.stdin.on('error', () => {})
    child.stdin.end(input)
  })
}

const sbx = (...args) => e2b(['sandbox', ...args])

test('without a key, and with a wrong one', async () => {
  const none = await e2b(['sandbox', 'list'], { env: { E2B_API_KEY: '' } })
  assert.equal(none.code, 1)
  assert.match(none.stderr, /E2B_API_KEY/)
  const wrong = await e2b(['template', 'list'], { env: { E2B_API_KEY: 'e2b_' + '0'.repeat(40) } })
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /\[401\] unauthorized/)
})

test('info, list and their filters', async () => {
  const info = JSON.parse((await sbx('info', sandbox, '-f', 'json')).stdout)
  assert.equal(info.state, 'running')
  const listed = JSON.parse((await sbx('list', '-f', 'json', '-l', '0', '-s', 'running')).stdout)
  assert.ok(listed.some((one) => one.sandboxId === sandbox || one.sandboxID === sandbox))
  assert.match((await sbx('list')).stdout, /SANDBOX ID +TEMPLATE ID +ALIAS +STARTED AT/)
  const nosuch = await sbx('info', 'inosuchsandbox0000000')
  assert.equal(nosuch.code, 1)
  assert.match(nosuch.stderr, /wasn't found/)
  const none = await sbx('create', '-d', `nosuch-${randomUUID()}`)
  assert.equal(none.code, 1)
  assert.match(none.stderr, /not found/)
})

test('exec keeps words, streams, exit codes and input', async () => {
  assert.equal((await sbx('exec', sandbox, 'echo $((1+1))')).stdout, '2\n')
  assert.equal((await sbx('exec', sandbox, 'echo', 'a b')).stdout, 'a b\n')
  assert.equal((await sbx('exec', sandbox, '--', 'sh', '-lc', 'exit 7')).code, 7)
  const both = await sbx('exec', sandbox, 'echo out; echo err >&2')
  assert.deepEqual([both.stdout, both.stderr.trim()], ['out\n', 'err'])
  // Into a file: on a pipe the program exits before Node.js has written all of it.
  const script = `"$0" "$1" sandbox exec ${sandbox} 'head -c 10000000 /dev/zero' </dev/null >"$HOME/out"`
  await new Promise((resolve) =>
    execFile('sh', ['-c', script, process.execPath, CLI], { env: environment() }, resolve)
  )
  assert.equal((await stat(join(home, 'out'))).size, 10_000_000)
  assert.equal((await sbx('exec', '-u', 'root', sandbox, 'whoami')).stdout, 'root\n')
  assert.equal((await sbx('exec', '-c', '/tmp', sandbox, 'pwd')).stdout, '/tmp\n')
  assert.equal((await sbx('exec', '-e', 'A=x=y', sandbox, 'printenv', 'A')).stdout, 'x=y\n')
  const piped = (input, ...words) => e2b(['sandbox', 'exec', sandbox, ...words], { input })
  assert.equal((await piped('foobar', 'wc', '-c')).stdout, '6\n')
  assert.equal((await piped('', 'wc', '-c')).stdout, '0\n')
  const data = randomBytes(1_000_000)
  const sum = createHash('sha256').update(data).digest('hex')
  assert.ok((await piped(data, 'sha256sum')).stdout.startsWith(sum))
  assert.equal((await sbx('exec', 'inosuchsandbox0000000', 'ls')).code, 1)
})

test('a command in the background, and an interrupt', async () => {
  const started = await sbx('exec', '-b', sandbox, 'sleep 1234')
  assert.deepEqual([started.code, started.stdout], [0, ''])
  const pid = started.stderr.match(/\d+/)[0]
  assert.match((await sbx('exec', sandbox, `ps -o args= -p ${pid}`)).stdout, /sleep 1234/)
  const child = spawn(process.execPath, [CLI, 'sandbox', 'exec', sandbox, 'echo up; exec sleep 1235'], {
    env: environment(),
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const ended = new Promise((resolve) => child.on('exit', resolve))
  child.kill('SIGINT')
  await ended
  assert.equal((await sbx('exec', sandbox, "pgrep -fx 'sleep 1235'")).code, 1)
})

test('pause, resume, and a command that resumes', async () => {
  assert.match((await sbx('pause', sandbox)).stdout, /has been paused/)
  const again = await sbx('pause', sandbox)
  assert.equal(again.code, 0)
  assert.match(again.stdout + again.stderr, /already paused/)
  assert.match((await sbx('resume', sandbox)).stdout, /has been resumed/)
  await sbx('pause', sandbox)
  assert.equal((await sbx('exec', sandbox, 'echo awake')).stdout, 'awake\n')
  assert.equal((await sbx('pause', 'inosuchsandbox0000000')).code, 1)
})

test('snapshots', async () => {
  const name = `cli-${randomUUID().slice(0, 8)}`
  const made = await sbx('snapshot', 'create', sandbox, '-n', name)
  assert.equal(made.code, 0, made.stderr)
  const [, id] = made.stdout.match(/Created snapshot (\S+) from/)
  const listed = await sbx('snapshot', 'list', sandbox, '-f', 'json')
  assert.ok(listed.stdout.includes(name), listed.stdout)
  const copy = await sbx('create', '-d', id)
  assert.equal(copy.code, 0, copy.stderr)
  await sbx('kill', copy.stdout.trim())
  assert.match((await sbx('snapshot', 'delete', id)).stdout, /has been deleted/)
})

test('logs and metrics', async () => {
  await sbx('exec', sandbox, 'echo told')
  const logs = await sbx('logs', sandbox, '--format', 'json')
  assert.equal(logs.code, 0, logs.stderr)
  assert.ok(logs.stdout.trim().split('\n').every((line) => JSON.parse(line).level))
  await until(async () => /CPU:.*Memory:.*Disk:/.test((await sbx('metrics', sandbox)).stdout), 'figures')
})

test('kill', async () => {
  const [one, two] = await Promise.all([sbx('create', '-d'), sbx('create', '-d')])
  const ids = [one.stdout.trim(), two.stdout.trim()]
  const killed = await sbx('kill', ...ids, 'inosuchsandbox0000000')
  assert.equal(killed.code, 0)
  for (const id of ids) assert.match(killed.stdout, new RegExp(`${id} has been killed`))
  assert.match(killed.stderr, /wasn't found/)
  assert.equal((await sbx('kill')).code, 1)
  assert.equal((await sbx('kill', '-a', ids[0])).code, 1)
})

test('a terminal that is none', async () => {
  const refused = await sbx('create')
  assert.equal(refused.code, 1)
})
