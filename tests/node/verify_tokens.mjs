// Reads {now, cases: [{token, jwtKey, authorizedParties}]} from stdin and prints, for each, what @clerk/backend
// says: {accepted, reason}. One process for the whole table, its clock held at `now` (seconds).
import { readFileSync } from "node:fs";

import { verifyToken } from "@clerk/backend";

const { now, cases } = JSON.parse(readFileSync(0, "utf8"));
Date.now = () => now * 1000;

async function judge({ token, jwtKey, authorizedParties }) {
  try {
    await verifyToken(token, { jwtKey, authorizedParties });
    return { accepted: true, reason: null };
  } catch (error) {
    return { accepted: false, reason: error.reason ?? String(error) };
  }
}

const verdicts = [];
for (const one of cases) verdicts.push(await judge(one));
process.stdout.write(JSON.stringify(verdicts));
