// The other side of the interoperability test: clients of ts-mls, driven by one JSON object a line on standard input, each
// answered by one on standard output. Byte strings are hexadecimal. {"op", "client", ...} -> {"ok": ...} or {"error": text}.
import {
  acceptAll, createApplicationMessage, createCommit, createGroup, createProposal, decodeMlsMessage, emptyPskIndex,
  encodeMlsMessage, generateKeyPackage, getCiphersuiteFromName, getCiphersuiteImpl, joinGroup, mlsExporter, processMessage,
} from 'ts-mls'
import { createInterface } from 'node:readline'

const suite = 'MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519'
const cs = await getCiphersuiteImpl(getCiphersuiteFromName(suite))
const clients = new Map() // name -> { publicPackage, privatePackage, state, pending }

const hex = (bytes) => Buffer.from(bytes).toString('hex')
const bytes = (text) => new Uint8Array(Buffer.from(text ?? '', 'hex'))
const decode = (text) => {
  const decoded = decodeMlsMessage(bytes(text), 0)
  if (decoded === undefined) throw new Error('undecodable message')
  return decoded[0]
}
const encode = (wireformat, field, value) => hex(encodeMlsMessage({ version: 'mls10', wireformat, [field]: value }))
const extensions = (list) => (list ?? []).map((e) => ({ extensionType: e.type, extensionData: bytes(e.data) }))

const operations = {
  async keyPackage({ client, identity }) {
    const now = BigInt(Math.floor(Date.now() / 1000))
    const capabilities = {
      versions: ['mls10'], ciphersuites: [suite], extensions: [0xf1a0], proposals: [], credentials: ['basic'],
    }
    const lifetime = { notBefore: now - 3600n, notAfter: now + 86400n * 30n }
    const credential = { credentialType: 'basic', identity: new TextEncoder().encode(identity) }
    const keys = await generateKeyPackage(credential, capabilities, lifetime, [], cs)
    clients.set(client, keys)
    return encode('mls_key_package', 'keyPackage', keys.publicPackage)
  },
  async create({ client, groupID, extensions: list }) {
    const c = clients.get(client)
    c.state = await createGroup(bytes(groupID), c.publicPackage, c.privatePackage, extensions(list), cs)
    return ''
  },
  async join({ client, welcome }) {
    const c = clients.get(client)
    c.state = await joinGroup(decode(welcome).welcome, c.publicPackage, c.privatePackage, emptyPskIndex, cs)
    return ''
  },
  async commit({ client, add, remove, aad }) {
    const c = clients.get(client)
    const extraProposals = [
      ...(remove ?? []).map((removed) => ({ proposalType: 'remove', remove: { removed } })),
      ...(add ?? []).map((text) => ({ proposalType: 'add', add: { keyPackage: decode(text).keyPackage } })),
    ]
    const result = await createCommit({ state: c.state, cipherSuite: cs }, {
      extraProposals, ratchetTreeExtension: true, wireAsPublicMessage: true, authenticatedData: bytes(aad),
    })
    c.pending = result.newState
    return {
      commit: hex(encodeMlsMessage(result.commit)),
      welcome: result.welcome === undefined ? '' : encode('mls_welcome', 'welcome', result.welcome),
    }
  },
  async merge({ client }) {
    const c = clients.get(client)
    c.state = c.pending
    c.pending = undefined
    return ''
  },
  async proposeRemove({ client, leaf }) {
    const c = clients.get(client)
    const result = await createProposal(c.state, true, { proposalType: 'remove', remove: { removed: leaf } }, cs)
    c.state = result.newState
    return hex(encodeMlsMessage(result.message))
  },
  async seal({ client, plaintext, aad }) {
    const c = clients.get(client)
    const result = await createApplicationMessage(c.state, bytes(plaintext), cs, bytes(aad))
    c.state = result.newState
    return encode('mls_private_message', 'privateMessage', result.privateMessage)
  },
  async process({ client, message }) {
    const c = clients.get(client)
    const result = await processMessage(decode(message), c.state, emptyPskIndex, acceptAll, cs)
    c.state = result.newState
    return result.kind === 'applicationMessage' ? hex(result.message) : ''
  },
  async state({ client, label, context, length }) {
    const { state } = clients.get(client)
    const exported = await mlsExporter(state.keySchedule.exporterSecret, label, bytes(context), length, cs)
    return { epoch: Number(state.groupContext.epoch), authenticator: hex(state.keySchedule.epochAuthenticator), exported: hex(exported) }
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  let answer
  try {
    answer = { ok: await operations[request.op](request) }
  } catch (error) {
    answer = { error: String(error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
