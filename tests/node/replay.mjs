// What the official openai client and the Vercel AI SDK yield, for many streams in one process.
//
//   node replay.mjs < jobs > readings
//
// Each line of input is a job {client: "openai" | "aisdk", baseURL, apiKey, model, usage}; each line of output, in the
// order of the jobs, {chunks, error} or {parts, errors, finish, usage}.  A few jobs run at once.
import { createInterface } from "node:readline";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";
import OpenAI from "openai";

const AT_ONCE = 4;
const PROMPT = "as recorded";
const clients = new Map();

function client(job, make) {
  const key = JSON.stringify([job.client, job.baseURL, job.usage]);
  if (!clients.has(key)) clients.set(key, make());
  return clients.get(key);
}

async function openai({ baseURL, apiKey, model, usage, ...job }) {
  const api = client({ baseURL, ...job }, () => new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 }));
  const body = { model, messages: [{ role: "user", content: PROMPT }], stream: true };
  if (usage) body.stream_options = { include_usage: true };
  const chunks = [];
  try {
    for await (const chunk of await api.chat.completions.create(body)) chunks.push(chunk);
  } catch (error) {
    return { chunks, error: { name: error.constructor.name, status: error.status ?? null, message: error.message } };
  }
  return { chunks, error: null };
}

async function aisdk({ baseURL, apiKey, model, usage, ...job }) {
  const make = () => createOpenAICompatible({ name: "gateway", baseURL, apiKey, includeUsage: usage });
  const provider = client({ baseURL, usage, ...job }, make);
  const seen = { parts: [], errors: [], finish: null, usage: null };
  const result = streamText({ model: provider(model), prompt: PROMPT, maxRetries: 0, onError: () => {} });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") seen.parts.push(["text", part.text]);
    else if (part.type === "reasoning-delta") seen.parts.push(["reasoning", part.text]);
    else if (part.type === "tool-call") seen.parts.push(["call", part.toolCallId, part.toolName, part.input]);
    else if (part.type === "error") seen.errors.push(String(part.error?.message ?? JSON.stringify(part.error)));
    else if (part.type === "finish") Object.assign(seen, { finish: part.finishReason, usage: part.totalUsage });
  }
  return seen;
}

const jobs = [];
for await (const line of createInterface({ input: process.stdin })) jobs.push(JSON.parse(line));
const readings = new Array(jobs.length);
let written = 0;
const next = jobs.entries();

async function work() {
  for (const [at, job] of next) {
    readings[at] = JSON.stringify(await (job.client === "openai" ? openai(job) : aisdk(job)));
    for (; written < jobs.length && readings[written] !== undefined; written++) {
      process.stdout.write(`${readings[written]}\n`);
      readings[written] = null;
    }
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, work));
