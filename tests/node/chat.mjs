// What the official openai client yields, as one JSON line.
//
//   node chat.mjs BASE_URL KEY '{"model": "lorem", "messages": […], "stream": true}' ['{"abort_after": 3}']
//
// {text, refusal, reasoning, tool_calls, finish, usage, model, id, chunks, role} or {…, error: {name, status, code, type, message}}.
// With abort_after the client leaves after so many content chunks.  Retries are off: the gateway's own are under test.
import OpenAI from "openai";

const [baseURL, apiKey, request, options = "{}"] = process.argv.slice(2);
const body = JSON.parse(request);
const { abort_after: abortAfter = Infinity } = JSON.parse(options);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30_000 });
const seen = { text: "", refusal: "", reasoning: "", tool_calls: [], finish: null, usage: null, chunks: 0, ids: [], role: "" };

function takeCall(delta) {
  const call = (seen.tool_calls[delta.index] ??= { id: "", name: "", arguments: "" });
  if (delta.id) call.id = delta.id;
  call.name += delta.function?.name ?? "";
  call.arguments += delta.function?.arguments ?? "";
}

function takeChoice({ delta, finish_reason: finish }) {
  seen.role += delta.role ?? "";
  seen.text += delta.content ?? "";
  seen.refusal += delta.refusal ?? "";
  seen.reasoning += delta.reasoning_content ?? "";
  for (const call of delta.tool_calls ?? []) takeCall(call);
  if (finish) seen.finish = finish;
}

async function stream() {
  let contents = 0;
  const answer = await client.chat.completions.create(body);
  for await (const chunk of answer) {
    seen.chunks += 1;
    seen.model = chunk.model;
    if (!seen.ids.includes(chunk.id)) seen.ids.push(chunk.id);
    if (chunk.usage) seen.usage = chunk.usage;
    for (const choice of chunk.choices) takeChoice(choice);
    if (chunk.choices[0]?.delta.content && ++contents >= abortAfter) {
      answer.controller.abort();
      break;
    }
  }
}

async function whole() {
  const answer = await client.chat.completions.create(body);
  const [{ message, finish_reason: finish }] = answer.choices;
  Object.assign(seen, { model: answer.model, ids: [answer.id], usage: answer.usage, finish, role: message.role });
  seen.text = message.content ?? "";
  seen.tool_calls = (message.tool_calls ?? []).map(({ id, function: f }) => ({ id, ...f }));
}

try {
  await (body.stream ? stream() : whole());
} catch (error) {
  const { status = null, code = null, type = null, message } = error;
  seen.error = { name: error.constructor.name, status, code, type, message };
}
console.log(JSON.stringify(seen));
