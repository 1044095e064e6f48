// Calls of the server. All of them send the token, which the printed address contains.

const query = new URLSearchParams(location.search).get("token");
if (query) sessionStorage.setItem("token", query);
export const token = query ?? sessionStorage.getItem("token") ?? "";

export class ApiError extends Error {
  constructor(message, hint, status) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function request(path, { body, signal, headers = {}, method } = {}, again = true) {
  const json = body !== undefined && !(body instanceof Blob);
  let answer;
  try {
    answer = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: { Authorization: `Bearer ${token}`, ...headers },
      body: json ? JSON.stringify(body) : body,
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server has stopped.", "Start `sgan explore` again.", 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 503 && again) {
    await pause(300);
    return request(path, { body, signal, headers, method }, false);
  }
  const { error, hint } = await answer.json().catch(() => ({ error: `The server answers with ${answer.status}.` }));
  throw new ApiError(error, hint, answer.status);
}

export const get = async (path) => (await request(path)).json();
export const post = async (path, body) => (await request(path, { body })).json();
export const blob = async (path) => (await request(path)).blob();

export async function upload(file) {
  const headers = { "X-Name": encodeURIComponent(file.name ?? "image") };
  return (await request("/api/photo", { body: file, headers })).json();
}

// Images as ImageData, and the commands that make the same.
export async function frames(path, body, signal) {
  const answer = await request(path, { body, signal });
  const number = (name) => Number(answer.headers.get(name));
  const [count, width, height] = [number("X-Count"), number("X-Width"), number("X-Height")];
  const buffer = await answer.arrayBuffer();
  const size = width * height * 4;
  const images = Array.from(
    { length: count },
    (_, i) => new ImageData(new Uint8ClampedArray(buffer, i * size, size), width, height),
  );
  const command = decodeURIComponent(answer.headers.get("X-Command") ?? "");
  return { images, command, frames: number("X-Frames") };
}

// Follow long work: onEvent gets each event, the result is returned. Aborting cancels the work.
export async function follow(path, body, onEvent, signal) {
  const answer = await request(path, { body, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError("The server has stopped.", "Start `sgan explore` again.", 0);
    });
    if (done) throw new ApiError("The work has ended without a result.", null, 0);
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.error) throw new ApiError(event.error, event.hint, 200);
      if (event.result) return event.result;
      onEvent(event);
    }
  }
}

export function decoded({ width, height, data }) {
  const bytes = Uint8ClampedArray.from(atob(data), (c) => c.charCodeAt(0));
  return new ImageData(bytes, width, height);
}

// At most one call at a time; of those that come meanwhile, only the newest follows. No stale frame is ever waited for.
export function newest(work, onError) {
  let running = false;
  let waiting = null;
  return async function run(...values) {
    if (running) {
      waiting = values;
      return;
    }
    running = true;
    try {
      await work(...values);
    } catch (error) {
      if (!waiting) onError(error);
    } finally {
      running = false;
      if (waiting) {
        const next = waiting;
        waiting = null;
        run(...next);
      }
    }
  };
}

let count = 0;
export const jobName = () => `page-${Date.now().toString(36)}-${count++}`;
