// Secrets, header rules, workload tokens and egress proxies through the JavaScript SDK.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { Sandbox, SandboxError, Secret, SecretNotFoundError } from 'e2b'
import { API_URL, api, withSandbox } from './support.mjs'

const CA = '/usr/local/share/ca-certificates/e2b-ca.crt'

test('a secret is kept, changed and forgotten, and its value never told', async () => {
  const name = `js-${randomUUID()}`
  const made = await Secret.create(name, 'hunter2-hunter2', { metadata: { for: 'tests' } })
  try {
    assert.match(made.secretId, /^sec_/)
    await assert.rejects(Secret.create(name, 'other'), /cannot be modified/)
    const changed = await Secret.update(name, 'next')
    assert.equal(changed.version, 2)
    assert.deepEqual(changed.metadata, { for: 'tests' })
    const raw = await api(`/secrets/${name}`)
    assert.equal(raw.headers.get('cache-control'), 'no-store')
    assert.doesNotMatch(await raw.text(), /hunter2|next/)
    assert.equal((await Secret.getInfo(made.secretId)).name, name)
  } finally {
    assert.equal(await Secret.destroy(name), true)
  }
  assert.equal(await Secret.destroy(name), false)
  await assert.rejects(Secret.getInfo(name), SecretNotFoundError)
  const anonymous = await fetch(`${API_URL}/secrets`)
  assert.equal(anonymous.status, 401)
  assert.equal(anonymous.headers.get('cache-control'), 'no-store')
})

test('header rules are kept as placeholders and bring a certificate authority', () =>
  withSandbox(
    async (sandbox) => {
      const { network } = await sandbox.getInfo()
      const [rule] = network.rules['api.example.com']
      assert.deepEqual(rule.transform.headers, {
        Authorization: 'Bearer ${e2b.secrets.key}',
        'X-Identity': '${e2b.identity.tokens.aws}',
      })
      const found = await sandbox.commands.run(`cat ${CA}; echo $NODE_EXTRA_CA_CERTS`)
      assert.match(found.stdout, /BEGIN CERTIFICATE/)
      assert.match(found.stdout, /\n\/etc\/ssl\/certs\/ca-certificates\.crt\n$/)
      assert.doesNotMatch(found.stdout, /PRIVATE KEY/)
      await sandbox.updateNetwork({ denyOut: ['203.0.113.0/24'] })
      assert.equal((await sandbox.getInfo()).network.rules, undefined)
    },
    {
      iam: { tokens: { aws: Secret.iamToken({ audience: 'sts', tokenType: 'JWT-SVID' }) } },
      network: {
        rules: {
          'api.example.com': [
            {
              transform: ({ iam }) => ({
                headers: {
                  Authorization: `Bearer ${Secret.fill('key')}`,
                  'X-Identity': iam.tokens.aws,
                },
              }),
            },
          ],
        },
      },
    }
  ))

test('what can not be is refused with its reason', async () => {
  const rule = (headers) => ({ rules: { 'a.example': [{ transform: { headers } }] } })
  for (const [options, reason] of [
    [{ network: rule({ X: '${e2b.nope}' }) }, /malformed E2B placeholder/],
    [{ network: rule({ 'bad name': 'x' }) }, /headers of domain a\.example are not valid/],
    [{ network: { rules: { '*': [] } } }, /Network rule domain is not valid/],
    [{ network: { egressProxy: { address: 'nowhere' } } }, /Invalid egress proxy config/],
    [{ network: { egressProxy: { address: '10.0.0.1:1080' } } }, /Invalid egress proxy config/],
    [{ iam: { tokens: { t: { audience: 'a', tokenType: 'x' } } } }, /only "JWT-SVID"/],
  ]) {
    await assert.rejects(Sandbox.create(options), (error) => {
      assert.ok(error instanceof SandboxError, String(error))
      assert.match(error.message, reason)
      return true
    })
  }
})
