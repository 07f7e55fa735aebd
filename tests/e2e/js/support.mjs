// What the test files share: a sandbox per file, bounded waiting, raw requests.
import assert from 'node:assert/strict'
import http from 'node:http'
import { after, before } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Sandbox } from 'e2b'

export const API_URL = process.env.E2B_API_URL ?? 'http://127.0.0.1:3000'
export const SANDBOX_URL = process.env.E2B_SANDBOX_URL ?? API_URL
export const API_KEY = process.env.E2B_API_KEY

assert.ok(API_KEY, 'E2B_API_KEY is not set: start the suite through its runner')

/** A sandbox that lives as long as the file's tests. */
export function shared(options = {}) {
  const held = {}
  before(async () => {
    held.sandbox = await Sandbox.create({ timeoutMs: 300_000, ...options })
  })
  after(() => held.sandbox?.kill())
  return held
}

/** Runs `work` with a sandbox of its own, which is killed afterwards. */
export async function withSandbox(work, options = {}) {
  const sandbox = await Sandbox.create({ timeoutMs: 60_000, ...options })
  try {
    return await work(sandbox)
  } finally {
    await sandbox.kill()
  }
}

/** The first truthy value of `probe`; rejects when none comes in time. */
export async function until(probe, what, ms = 15_000) {
  const end = Date.now() + ms
  for (;;) {
    const value = await probe()
    if (value) return value
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`)
    await pause(100)
  }
}

/** A REST call with the suite's key. */
export function api(path, { method = 'GET', body, headers = {} } = {}) {
  return fetch(API_URL + path, {
    method,
    headers: { 'X-API-Key': API_KEY, 'content-type': 'application/json', ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
}

/** A request to a sandbox's port by host name, which fetch does not let one set. */
export function viaHost(host, path = '/') {
  const url = new URL(SANDBOX_URL)
  return new Promise((resolve, reject) => {
    const request = http.request(
      { host: url.hostname, port: url.port, path, headers: { host }, agent: false },
      (response) => {
        const chunks = []
        response.on('data', (chunk) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () =>
          resolve({ status: response.statusCode, text: Buffer.concat(chunks).toString() })
        )
      }
    )
    request.on('error', reject)
    request.setTimeout(15_000, () => request.destroy(new Error('timed out')))
    request.end()
  })
}
