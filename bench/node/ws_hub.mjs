// A hub on npm's ws that stores nothing: what one client sets is told to all. node ws_hub.mjs PORT
import { createServer } from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const server = createServer((request, response) => response.end());
const hub = new WebSocketServer({ server });

hub.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data) => {
    const { key, value } = JSON.parse(data);
    const told = JSON.stringify({ type: "key_updated", key, value, timestamp: Date.now() });
    for (const client of hub.clients) if (client.readyState === WebSocket.OPEN) client.send(told);
  });
  socket.send('{"type":"sync"}');
});

server.listen(Number(process.argv[2]), "127.0.0.1", 2048);
