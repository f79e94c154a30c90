// Talks to an echo as npm's ws does: {url, refused} on standard input, what it saw on output, as JSON.
import { once } from "node:events";
import { text } from "node:stream/consumers";
import WebSocket from "ws";

const { url, refused } = JSON.parse(await text(process.stdin));
const LARGE_BYTES = 5 * 1024 * 1024;
const LIMIT_BYTES = 10 * 1024 * 1024;

async function open(options = {}) {
  const socket = new WebSocket(url, { skipUTF8Validation: false, ...options });
  socket.inbox = [];
  socket.on("message", (data, isBinary) => socket.inbox.push(isBinary ? data : data.toString()));
  await once(socket, "open");
  return socket;
}

async function ask(socket, message, options = {}) {
  const answered = once(socket, "message");
  socket.send(message, options);
  const [data, isBinary] = await answered;
  return isBinary ? data : data.toString();
}

async function ended(socket) {
  const [code, reason] = await once(socket, "close");
  return [code, reason.toString()];
}

async function fragments(socket) {
  const answered = once(socket, "message");
  const pong = once(socket, "pong");
  socket.send("in ", { fin: false });
  socket.ping("between");
  socket.send("three ", { fin: false });
  socket.send("parts", { fin: true });
  return [(await answered)[0].toString(), (await pong)[0].toString()];
}

async function closeWith(code, reason) {
  const socket = await open();
  const end = ended(socket);
  socket.close(code, reason);
  return end;
}

async function beClosedWith(words) {
  const socket = await open();
  const end = ended(socket);
  socket.send(words);
  return end;
}

async function oversized() {
  const socket = await open();
  const end = ended(socket);
  socket.on("error", () => {});
  socket.send(Buffer.alloc(LIMIT_BYTES + 1));
  return end;
}

async function refusal() {
  const socket = new WebSocket(refused);
  const [, response] = await once(socket, "unexpected-response");
  const body = JSON.parse(await text(response));
  return [response.statusCode, body.code];
}

async function burst(socket, count) {
  const from = socket.inbox.length;
  for (let number = 0; number < count; number += 1) socket.send(String(number));
  while (socket.inbox.length < from + count) await once(socket, "message");
  return socket.inbox.slice(from).every((message, number) => message === String(number));
}

async function slices(socket, text) {
  let pings = 0;
  const count = () => (pings += 1);
  socket.on("ping", count);
  const from = socket.inbox.length;
  socket.send(`slices ${text}`);
  while (socket.inbox.length < from + 2) await once(socket, "message");
  socket.off("ping", count);
  return [socket.inbox[from] === text, socket.inbox[from + 1], pings > 0];
}

const socket = await open();
const binary = Buffer.from([0, 1, 255]);
const large = "ä".repeat(LARGE_BYTES / 2);
const seen = {
  echo: await ask(socket, "grüße"),
  empty: await ask(socket, ""),
  binary: binary.equals(await ask(socket, binary)),
  large: (await ask(socket, large)) === large,
  atLimit: (await ask(socket, Buffer.alloc(LIMIT_BYTES))).length,
  fragments: await fragments(socket),
  slices: await slices(socket, large),
  burst: await burst(socket, 5000),
  extensions: socket.extensions,
  closes: [await closeWith(1000, ""), await closeWith(4001, "done"), await closeWith()],
  closed: [await beClosedWith("close 1000"), await beClosedWith("close 4408 Too slow"), await beClosedWith("crash")],
  oversized: await oversized(),
  refusal: await refusal(),
};
socket.terminate();
process.stdout.write(JSON.stringify(seen));
