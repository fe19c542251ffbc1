// Serves a Node function as `kn func` makes them: its module exports `handle(context, body)`, or
// `handle(context, event)` with --invoke=cloudevent. Runs with Node alone, no packages.
//
//     node serve_node.mjs index.js [--invoke=http|cloudevent]
import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [entry, ...options] = process.argv.slice(2);
const invoke = (options.find((o) => o.startsWith("--invoke=")) ?? "--invoke=http").slice(9);
const loaded = await import(pathToFileURL(path.resolve(entry)).href);
const module = loaded.default ?? loaded;
const handle = typeof module === "function" ? module : (module.handle ?? loaded.handle);
if (typeof handle !== "function") {
  console.error(`${entry}: nothing to serve: export handle(context, body)`);
  process.exit(1);
}
await module.init?.();

const server = http.createServer(async (request, response) => {
  try {
    const url = new URL(request.url, "http://localhost");
    const health = { "/health/liveness": "liveness", "/health/readiness": "readiness" };
    if (url.pathname in health) {
      const good = await (module[health[url.pathname]]?.() ?? true);
      response.writeHead(good ? 200 : 503).end(good ? "OK" : "not OK");
      return;
    }
    const blocks = [];
    for await (const block of request) blocks.push(block);
    const raw = Buffer.concat(blocks);
    const kind = request.headers["content-type"] ?? "";
    const body = decoded(raw, kind);
    const context = {
      log: console, method: request.method, headers: request.headers, body, rawBody: raw,
      query: Object.fromEntries(url.searchParams), httpVersion: request.httpVersion,
      cloudEventResponse: (data) => new EventAnswer(data),
    };
    let argument = body;
    if (invoke === "cloudevent" || request.headers["ce-specversion"]) {
      argument = context.cloudevent = eventOf(request.headers, body);
      if (!argument && invoke === "cloudevent") {
        response.writeHead(400).end("not a CloudEvent: no ce-specversion\n");
        return;
      }
    }
    answer(response, await handle(context, argument ?? body));
  } catch (error) {
    console.error(error);
    if (response.headersSent) return void response.destroy();
    response.writeHead(error.code >= 400 ? error.code : 500).end("internal error\n");
  }
});

function decoded(raw, kind) {
  if (!raw.length) return undefined;
  if (/^application\/(.*\+)?json/.test(kind)) return JSON.parse(raw);
  if (kind.startsWith("application/x-www-form-urlencoded"))
    return Object.fromEntries(new URLSearchParams(raw.toString()));
  return kind.startsWith("text/") || !kind ? raw.toString() : raw;
}

function eventOf(headers, body) {
  if ((headers["content-type"] ?? "").startsWith("application/cloudevents+json")) return body;
  if (!headers["ce-specversion"]) return undefined;
  const event = { data: body, datacontenttype: headers["content-type"] };
  for (const [name, value] of Object.entries(headers))
    if (name.startsWith("ce-")) event[name.slice(3)] = decodeURIComponent(value);
  return event;
}

class EventAnswer {
  constructor(data) { this.event = { data }; }
  source(v) { this.event.source = v; return this; }
  type(v) { this.event.type = v; return this; }
  id(v) { this.event.id = v; return this; }
  version(v) { this.event.specversion = v; return this; }
  response() { return { specversion: "1.0", id: crypto.randomUUID(), ...this.event }; }
}

// An attribute as the HTTP binding has it: percent-encoded where it is not plain.
function inHeader(value) {
  return String(value).replace(/[^\x21\x23\x24\x26-\x7e]/gu, encodeURIComponent);
}

function answer(response, result) {
  if (result instanceof EventAnswer) result = result.response();
  let { status, headers = {}, body } = { status: 200, body: result };
  if (result?.specversion) {
    const { data, data_base64, datacontenttype, ...attributes } = result;
    body = data_base64 ? Buffer.from(data_base64, "base64") : data;
    if (datacontenttype) headers["content-type"] = datacontenttype;
    for (const [name, value] of Object.entries(attributes))  // those of the SDK have unset ones, too
      if (value !== undefined && value !== null) headers[`ce-${name}`] = inHeader(value);
  } else if (result && typeof result === "object" && !Buffer.isBuffer(result) &&
             ("statusCode" in result || "body" in result || "headers" in result)) {
    status = result.statusCode ?? result.code ?? 200;
    headers = { ...result.headers };
    body = result.body;
  }
  const names = new Set(Object.keys(headers).map((name) => name.toLowerCase()));
  if (body === undefined || body === null) {
    response.writeHead(status === 200 ? 204 : status, headers).end();
    return;
  }
  if (typeof body !== "string" && !Buffer.isBuffer(body)) {
    body = JSON.stringify(body);
    if (!names.has("content-type")) headers["content-type"] = "application/json; charset=utf-8";
  } else if (!names.has("content-type")) {
    headers["content-type"] = "text/plain; charset=utf-8";
  }
  response.writeHead(status, headers).end(body);
}

server.listen(Number(process.env.PORT ?? 8080), () => {});
for (const signal of ["SIGTERM", "SIGINT"])
  process.on(signal, () => {
    server.close(async () => { await module.shutdown?.(); process.exit(0); });
    server.closeIdleConnections();
  });
