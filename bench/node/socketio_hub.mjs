// A hub on npm's socket.io that stores nothing: what one client sets is told to the room. node socketio_hub.mjs PORT
import { createServer } from "node:http";
import { Server } from "socket.io";

const ROOM = "instance";
const server = createServer((request, response) => response.end());
const hub = new Server(server, { transports: ["websocket"], serveClient: false });

hub.on("connection", (socket) => {
  socket.join(ROOM);
  socket.on("set", ({ key, value }) => hub.to(ROOM).emit("key_updated", { key, value, timestamp: Date.now() }));
  socket.emit("sync");
});

server.listen(Number(process.argv[2]), "127.0.0.1", 2048);
