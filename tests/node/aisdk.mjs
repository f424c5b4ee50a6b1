// What the Vercel AI SDK yields through @ai-sdk/openai-compatible or @ai-sdk/openai, as one JSON line.
//
//   node aisdk.mjs BASE_URL KEY MODEL PROMPT ['{"tools": true, "through": "openai"}']
//
// {text, reasoning, tool_calls, finish, usage, parts: {type: count}, errors: […]}.
// With tools, the three tools that the fault provider calls are offered (and never executed).
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { jsonSchema, streamText, tool } from "ai";

const [baseURL, apiKey, model, prompt, options = "{}"] = process.argv.slice(2);
const given = JSON.parse(options);
const compatible = () => createOpenAICompatible({ name: "gateway", baseURL, apiKey, includeUsage: true });
const provider = given.through === "openai" ? createOpenAI({ baseURL, apiKey }).chat : compatible();
const anything = tool({ description: "anything", inputSchema: jsonSchema({ type: "object" }) });
const tools = given.tools ? { get_weather: anything, get_time: anything, search: anything } : undefined;
const seen = { text: "", reasoning: "", tool_calls: [], finish: null, usage: null, parts: {}, errors: [] };

const result = streamText({ model: provider(model), prompt, tools, maxRetries: 0, onError: () => {} });
for await (const part of result.fullStream) {
  seen.parts[part.type] = (seen.parts[part.type] ?? 0) + 1;
  if (part.type === "text-delta") seen.text += part.text;
  else if (part.type === "reasoning-delta") seen.reasoning += part.text;
  else if (part.type === "tool-call") seen.tool_calls.push({ id: part.toolCallId, name: part.toolName, input: part.input });
  else if (part.type === "error") seen.errors.push(String(part.error?.message ?? part.error));
  else if (part.type === "finish") Object.assign(seen, { finish: part.finishReason, usage: part.totalUsage });
}
console.log(JSON.stringify(seen));
