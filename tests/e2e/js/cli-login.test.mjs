// The official command line signs in at the server's own page.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { API_KEY, API_URL, SANDBOX_URL, until } from './support.mjs'

const CLI = fileURLToPath(new URL('./node_modules/.bin/e2b', import.meta.url))
let home

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'warren-login-'))
})

after(() => rm(home, { recursive: true, force: true }))

/** Starts the program without a key and without a browser. */
function e2b(...args) {
  const env = {
    PATH: '/nonexistent',
    HOME: home,
    E2B_API_URL: API_URL,
    E2B_SANDBOX_URL: SANDBOX_URL,
    E2B_DOCS_BASE: API_URL,
    NO_UPDATE_NOTIFIER: '1',
  }
  const child = spawn(process.execPath, [CLI, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const run = { out: '', err: '' }
  child.stdout.on('data', (text) => (run.out += text))
  child.stderr.on('data', (text) => (run.err += text))
  run.done = new Promise((resolve) => child.on('exit', resolve))
  return run
}

function page(path, { cookie, form } = {}) {
  return fetch(new URL(path, API_URL), {
    method: form ? 'POST' : 'GET',
    redirect: 'manual',
    headers: { ...(cookie && { cookie }), ...(form && { origin: new URL(API_URL).origin }) },
    body: form && new URLSearchParams(form),
  })
}

test('login, info, use of the key, logout', async () => {
  const login = e2b('auth', 'login')
  const url = await until(() => login.out.match(/^http\S+/m)?.[0], 'the page to open')
  const entry = await page(new URL(url).pathname + new URL(url).search)
  const signIn = await page('/dashboard/sign-in', { form: { key: API_KEY } })
  const cookie = signIn.headers.get('set-cookie').split(';')[0]
  const asked = await (await page(entry.headers.get('location'), { cookie })).text()
  const field = (name) => asked.match(new RegExp(`name="${name}" value="([^"]*)"`))[1]
  const form = { csrf: field('csrf'), next: field('next'), allow: 'true' }
  const granted = await page('/dashboard/cli', { cookie, form })
  const back = await fetch(granted.headers.get('location'), { redirect: 'manual' })
  assert.match(back.headers.get('location'), /\/api\/cli\?state=success&email=/)
  assert.equal(await login.done, 0, login.err)
  assert.match(login.out, /Logged in as .*@.* with selected project/)

  const file = join(home, '.e2b/config.json')
  assert.equal((await stat(file)).mode & 0o777, 0o600)
  const config = JSON.parse(await readFile(file, 'utf8'))
  const info = e2b('auth', 'info')
  assert.equal(await info.done, 0)
  assert.match(info.out, new RegExp(config.projectId))
  const list = e2b('sandbox', 'list', '-f', 'json')
  assert.equal(await list.done, 0, list.err)

  // Without a terminal it can't ask, but it has refreshed its tokens by then.
  const configure = e2b('auth', 'configure')
  await configure.done
  assert.doesNotMatch(configure.err, /expired|Error getting projects/)

  const logout = e2b('auth', 'logout')
  assert.equal(await logout.done, 0, logout.err)
  assert.match(logout.out, /Logged out/)
  const token = config.tokens.access_token
  const teams = await fetch(`${API_URL}/teams`, { headers: { authorization: `Bearer ${token}` } })
  assert.equal(teams.status, 401, 'the token was revoked')
})
