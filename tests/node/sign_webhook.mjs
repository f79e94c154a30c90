// Signs a webhook as npm's svix does: {secret, id, timestamp, payload} on standard input, the signature on output.
import { text } from "node:stream/consumers";
import { Webhook } from "svix";

const { secret, id, timestamp, payload } = JSON.parse(await text(process.stdin));
process.stdout.write(new Webhook(secret).sign(id, new Date(timestamp * 1000), payload));
