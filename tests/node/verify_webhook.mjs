// Verifies a webhook as npm's svix does: {secret, headers, payload} on standard input, what it holds on output.
import { text } from "node:stream/consumers";
import { Webhook } from "svix";

const { secret, headers, payload } = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(new Webhook(secret).verify(payload, headers)));
