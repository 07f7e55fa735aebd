// Templates through the official command line.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtemp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Sandbox } from 'e2b'
import { API_KEY, API_URL, SANDBOX_URL } from './support.mjs'

const CLI = fileURLToPath(new URL('./node_modules/.bin/e2b', import.meta.url))
const NAME = `cli-${randomUUID().slice(0, 8)}`
let home, project

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'warren-cli-home-'))
  project = await mkdtemp(join(tmpdir(), 'warren-cli-project-'))
  await mkdir(join(project, 'src'))
  await writeFile(join(project, 'src/hello.txt'), 'hello from the context\n')
  await writeFile(join(project, 'src/left.log'), 'not copied\n')
  await writeFile(join(project, '.dockerignore'), '**/*.log\n')
  await writeFile(
    join(project, 'e2b.Dockerfile'),
    [
      'FROM e2bdev/base',
      'WORKDIR /app',
      'COPY src/ /app/src/',
      'ENV GREETING=good-day',
      'RUN echo "$GREETING" > /app/greeting',
    ].join('\n')
  )
})

after(async () => {
  await e2b('template', 'delete', NAME, '-y')
  await rm(home, { recursive: true, force: true })
  await rm(project, { recursive: true, force: true })
})

/** Runs the program with a home and a directory of its own; never rejects. */
function e2b(...args) {
  const env = {
    PATH: process.env.PATH,
    HOME: home,
    E2B_API_KEY: API_KEY,
    E2B_API_URL: API_URL,
    E2B_SANDBOX_URL: SANDBOX_URL,
    NO_UPDATE_NOTIFIER: '1',
  }
  return new Promise((resolve) => {
    const options = { cwd: project, env, timeout: 120_000 }
    const child = execFile(process.execPath, [CLI, ...args], options, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, stdout, stderr })
    )
    child.stdin.end()
  })
}

async function listed(name = NAME) {
  const { code, stdout, stderr } = await e2b('template', 'list', '-f', 'json')
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout).find((template) => template.aliases.includes(name))
}

test('create builds a Dockerfile, and a sandbox starts from it', async () => {
  const built = await e2b('template', 'create', NAME, '--cpu-count', '2', '--memory-mb', '512')
  assert.equal(built.code, 0, built.stdout + built.stderr)
  assert.match(built.stdout, /Found \.\/e2b\.Dockerfile/)
  assert.match(built.stdout, /Template created with ID: [a-z0-9]{20}, Build ID: /)
  assert.match(built.stdout, /\[builder \d\/\d\] RUN echo/)
  assert.match(built.stdout, new RegExp(`Building sandbox template ${NAME} finished`))
  const template = await listed()
  assert.equal(template.buildStatus, 'ready')
  assert.deepEqual([template.cpuCount, template.memoryMB, template.public], [2, 512, false])
  assert.deepEqual(template.names.map((name) => name.split('/')[1]), [NAME])
  const sandbox = await Sandbox.create(NAME, { timeoutMs: 60_000 })
  try {
    const seen = await sandbox.commands.run('ls /app/src; cat /app/greeting')
    assert.equal(seen.stdout, 'hello.txt\ngood-day\n')
  } finally {
    await sandbox.kill()
  }
})

test('a second build takes every step from the cache', async () => {
  const built = await e2b('template', 'create', NAME)
  assert.equal(built.code, 0, built.stdout + built.stderr)
  assert.match(built.stdout, /Skipping upload of 'src\/', already cached/)
  const steps = built.stdout.match(/\[builder \d\/\d\] [A-Z]+/g)
  const cached = built.stdout.match(/CACHED \[builder \d\/\d\] [A-Z]+/g)
  assert.equal(cached.length, steps.length, built.stdout)
})

test('a step that fails is the reason that is printed', async () => {
  const name = `${NAME}-bad`
  await writeFile(join(project, 'bad.Dockerfile'), 'FROM e2bdev/base\nRUN exit 7\n')
  try {
    const built = await e2b('template', 'create', name, '-d', 'bad.Dockerfile')
    assert.equal(built.code, 1)
    assert.match(built.stderr, /Template build failed/)
    assert.match(built.stderr, /failed to run command 'exit 7': exit status 7/)
  } finally {
    assert.equal((await e2b('template', 'delete', name, '-y')).code, 0)
  }
})

test('resources that a template can not have are refused in words', async () => {
  const refused = await e2b('template', 'create', `${NAME}-big`, '--memory-mb', '1048576')
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /Memory can't be higher than \d+ MiB/)
  assert.equal(await listed(`${NAME}-big`), undefined)
})

test('publish, unpublish, list', async () => {
  const published = await e2b('template', 'publish', NAME, '-y')
  assert.equal(published.code, 0, published.stderr)
  assert.match(published.stdout, new RegExp(`Published as: [a-z0-9-]+/${NAME}`))
  assert.equal((await listed()).public, true)
  const table = await e2b('template', 'list')
  assert.match(table.stdout, /ACCESS +TEMPLATE ID +TEMPLATE NAME +VCPUS +RAM MIB/)
  assert.match(table.stdout, new RegExp(`Public +[a-z0-9]{20} +${NAME} `))
  assert.equal((await e2b('template', 'unpublish', NAME, '-y')).code, 0)
  assert.equal((await listed()).public, false)
  const wrong = await e2b('template', 'list', '--project', randomUUID())
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /\[400\] bad request: Team ID param mismatch/)
})

test('delete refuses while a sandbox runs, then frees the name', async () => {
  const sandbox = await Sandbox.create(NAME, { timeoutMs: 60_000 })
  try {
    const refused = await e2b('template', 'delete', NAME, '-y')
    assert.equal(refused.code, 1)
    assert.match(refused.stderr, /there are running sandboxes using it/)
  } finally {
    await sandbox.kill()
  }
  const deleted = await e2b('template', 'delete', NAME, '-y')
  assert.equal(deleted.code, 0, deleted.stderr)
  assert.equal(await listed(), undefined)
  const again = await e2b('template', 'delete', NAME, '-y')
  assert.equal(again.code, 1)
  assert.match(again.stderr, new RegExp(`\\[404\\] not found: template '${NAME}' not found`))
})

test('migrate turns a Dockerfile and e2b.toml into a program', async () => {
  const old = await mkdtemp(join(project, 'old-'))
  await writeFile(join(old, 'e2b.Dockerfile'), 'FROM e2bdev/base\nRUN echo hi\n')
  const toml = 'template_id = "abc"\ndockerfile = "e2b.Dockerfile"\ntemplate_name = "moved"\n'
  await writeFile(join(old, 'e2b.toml'), toml)
  const moved = await e2b('template', 'migrate', '-p', old, '-l', 'typescript')
  assert.equal(moved.code, 0, moved.stderr)
  const files = await readdir(old)
  assert.ok(files.includes('template.ts') && files.includes('e2b.toml.old'), files.join())
  assert.match(await readFile(join(old, 'template.ts'), 'utf8'), /echo hi/)
  assert.equal((await e2b('template', 'build')).code, 1, 'the first generation is gone')
})
