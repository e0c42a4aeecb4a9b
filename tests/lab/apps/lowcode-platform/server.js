// Copyright: (c) 2026, Worklog Maintenance contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// The low-code platform of the lab: Node.js under PM2, documents in MongoDB, logs by Winston.
// `node server.js --check` tests the configuration. Switches: tests/lab/README.md.
'use strict'

const crypto = require('crypto')
const fs = require('fs')
const http = require('http')
const os = require('os')
const path = require('path')

require('dotenv').config({ path: path.join(__dirname, '.env') })
const { MongoClient } = require('mongodb')
const winston = require('winston')

const VERSION = require('./package.json').version
const NODE = os.hostname()
const SLOW_MS = Number(process.env.SLOW_MS || 500)

function checkedConfig (env) {
  const config = { port: Number(env.PORT), mongo: env.MONGO_URL, uploads: env.UPLOADS, maxUpload: Number(env.MAX_UPLOAD_BYTES) }
  if (!Number.isInteger(config.port) || config.port < 1 || config.port > 65535) throw new Error(`PORT must be a port number, got '${env.PORT}'`)
  if (!/^mongodb:\/\//.test(config.mongo || '')) throw new Error(`MONGO_URL must start with mongodb://, got '${env.MONGO_URL}'`)
  if (!config.uploads) throw new Error('UPLOADS (a directory) is missing')
  if (!(config.maxUpload > 0)) throw new Error(`MAX_UPLOAD_BYTES must be a number, got '${env.MAX_UPLOAD_BYTES}'`)
  return config
}

let config
try {
  config = checkedConfig(process.env)
} catch (error) {
  console.error(`configuration error: .env: ${error.message}`)
  process.exit(78)
}
if (process.argv.includes('--check')) {
  console.log('.env: configuration is fine')
  process.exit(0)
}

const line = winston.format.printf(({ timestamp, level, message }) => `${timestamp} [${level.toUpperCase()}] ${message}`)
const logger = winston.createLogger({
  format: winston.format.combine(winston.format.timestamp({ format: 'YYYY-MM-DD HH:mm:ss' }), line),
  transports: [
    new winston.transports.File({ filename: path.join(__dirname, 'logs', 'combined.log') }),
    new winston.transports.File({ filename: path.join(__dirname, 'logs', 'error.log'), level: 'error' })
  ]
})

function switches () {
  const found = {}
  for (const file of [path.join(__dirname, 'switches.json'), process.env.SWITCHES || '']) {
    try { Object.assign(found, JSON.parse(fs.readFileSync(file, 'utf8'))) } catch { /* none is the usual case */ }
  }
  return found
}

const sleep = seconds => new Promise(resolve => setTimeout(resolve, Math.min(60, seconds || 0) * 1000))
const client = new MongoClient(config.mongo, { serverSelectionTimeoutMS: 2000, connectTimeoutMS: 2000, maxPoolSize: 10 })
const records = client.db('worklog').collection('work_records')
const stats = { requests: 0, errors: 0, slow: 0, totalMs: 0, active: 0, started: Date.now() }
const leak = []
let stopping = false

async function health () {
  let mongo = 'ok'
  try { await client.db('worklog').command({ ping: 1 }) } catch (error) { mongo = error.message }
  const ready = mongo === 'ok' && !stopping
  const status = ready ? 'ok' : stopping ? 'stopping' : 'not ready'
  return [ready ? 200 : 503, { status, ready, version: VERSION, node: NODE, checks: { mongo } }]
}

async function body (request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function firstPart (data, type) {
  const boundary = /^multipart\/form-data;.*boundary="?([^";]+)/.exec(type || '')
  if (!boundary) return data
  const start = data.indexOf('\r\n\r\n') + 4
  return data.subarray(start, data.indexOf(`\r\n--${boundary[1]}`, start))
}

async function upload (request) {
  const announced = Number(request.headers['content-length'] || 0)
  if (announced > config.maxUpload) return [413, { error: `${announced} bytes are more than MAX_UPLOAD_BYTES (${config.maxUpload})` }]
  const data = firstPart(await body(request), request.headers['content-type'])
  const sha256 = crypto.createHash('sha256').update(data).digest('hex')
  await fs.promises.writeFile(path.join(config.uploads, sha256), data)
  return [201, { size: data.length, sha256 }]
}

const routes = {
  'GET /health': health,
  'GET /whoami': async () => [200, { node: NODE, version: VERSION, pid: process.pid }],
  'GET /hold': async (request, query) => { await sleep(Number(query.get('seconds') || 1)); return [200, { node: NODE, version: VERSION }] },
  'GET /api/stats': async () => [200, {
    version: VERSION, node: NODE, uptimeSeconds: Math.round((Date.now() - stats.started) / 1000),
    requests: stats.requests, errors: stats.errors, slowRequests: stats.slow, activeRequests: stats.active,
    averageMs: stats.requests ? Math.round(stats.totalMs / stats.requests * 100) / 100 : 0,
    memoryMb: Math.round(process.memoryUsage().rss / 1048576)
  }],
  'GET /api/records': async () => [200, { count: await records.countDocuments({}), latest: await records.find().sort({ _id: -1 }).limit(10).toArray() }],
  'POST /api/records': async request => {
    const record = JSON.parse((await body(request)).toString() || '{}')
    const { insertedId } = await records.insertOne({ title: String(record.title || 'untitled'), createdAt: new Date() })
    return [201, { id: insertedId }]
  },
  'POST /upload': upload
}

async function handle (request) {
  const url = new URL(request.url, 'http://localhost')
  const route = routes[`${request.method} ${url.pathname}`]
  if (!route) return [404, { error: `no ${request.method} ${url.pathname}` }]
  const flags = switches()
  if (url.pathname !== '/health') {
    await sleep(flags.hold)
    if (flags.leak_mb) leak.push(Buffer.alloc(flags.leak_mb * 1048576, 'x'))
    if (Math.random() < (flags.error_rate || 0)) return [500, { error: 'switched on by error_rate' }]
  }
  try { return await route(request, url.searchParams) } catch (error) { return [503, { error: error.message }] }
}

const server = http.createServer(async (request, response) => {
  const begin = process.hrtime.bigint()
  stats.active++
  const [status, answer] = await handle(request)
  const data = JSON.stringify(answer) + '\n'
  const headers = { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': Buffer.byteLength(data), 'X-Node': NODE, 'X-Version': VERSION }
  if (stopping || !request.complete) headers.Connection = 'close'
  response.writeHead(status, headers).end(data)
  const ms = Number(process.hrtime.bigint() - begin) / 1e6
  stats.active--
  stats.requests++
  stats.totalMs += ms
  if (ms > SLOW_MS) { stats.slow++; logger.warn(`慢请求 ${ms.toFixed(0)} ms ${request.method} ${request.url}`) }
  if (status >= 500) { stats.errors++; logger.error(`${request.method} ${request.url} ${status} ${answer.error || answer.status}`) }
})

function stop (signal) {
  if (stopping) return
  stopping = true
  logger.info(`${signal}: finishing ${stats.active} requests`)
  // One turn of the event loop later, so that connections waiting in the backlog are accepted first.
  setTimeout(() => {
    server.close(async () => {
      await client.close()
      logger.info('stopped')
      logger.end(() => process.exit(0))
    })
    server.closeIdleConnections()
  }, 50)
}
process.on('SIGINT', () => stop('SIGINT'))
process.on('SIGTERM', () => stop('SIGTERM'))
process.on('message', message => { if (message === 'shutdown') stop('shutdown') })

async function main () {
  const flags = switches()
  await sleep(flags.start_delay)
  server.keepAliveTimeout = 30000
  server.on('error', error => {
    logger.error(`cannot listen: ${error.message}`)
    console.error(`cannot listen: ${error.message}`)
    process.exit(1)
  })
  server.listen(config.port, '0.0.0.0', () => {
    logger.info(`lowcode-platform ${VERSION} listens on ${config.port}`)
    console.log(`lowcode-platform ${VERSION} listens on ${config.port}`)
    if (process.send) process.send('ready')
  })
  if (flags.crash_after) setTimeout(() => { console.error('FATAL: switched on by crash_after'); process.exit(3) }, flags.crash_after * 1000)
}

main()
