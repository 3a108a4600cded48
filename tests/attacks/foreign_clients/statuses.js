// Calls a server in several ways and prints, as JSON, how each call ended: node statuses.js PROTO ADDRESS TOKEN
"use strict";

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, address, token] = process.argv.slice(2);
const { RS } = grpc.loadPackageDefinition(loader.loadSync(proto));
const client = new RS.RemSvc(address, grpc.credentials.createInsecure());

function metadata(value) {
  const made = new grpc.Metadata();
  if (value) made.set("authorization", "Bearer " + value);
  return made;
}

function unary(method, request, value, seconds = 30) {
  const options = { deadline: Date.now() + 1000 * seconds };
  return new Promise((resolve) =>
    client[method](request, metadata(value), options, (error, answer) =>
      resolve(error ? [error.code, error.details] : [0, answer.out || ""])
    )
  );
}

function stream(texts, value) {
  return new Promise((resolve) => {
    const answers = [];
    const call = client.RemCmdStrm(metadata(value), { deadline: Date.now() + 30000 });
    call.on("data", (answer) => answers.push(answer.out));
    call.on("error", (error) => resolve([error.code, error.details]));
    call.on("end", () => resolve([0, answers.join("")]));
    for (const cmd of texts) call.write({ cmd });
    call.end();
  });
}

function unknown(path) {
  return new Promise((resolve) =>
    client.makeUnaryRequest(path, (x) => x, (x) => x, Buffer.alloc(0), metadata(token), {}, (error) =>
      resolve(error ? [error.code, error.details] : [0, ""])
    )
  );
}

async function main() {
  const seen = {
    "a command": await unary("RemCmd", { cmd: "echo müsli" }, token),
    "a large answer": await unary("RemCmd", { cmd: "head -c 200000 /dev/zero | tr '\\0' x" }, token),
    "a stream": await stream(["echo 1", "echo 2", "echo 3", "echo 4"], token),
    "no token": await unary("Ping", {}, ""),
    "no token on a stream": await stream(Array(10).fill("true"), ""),
    "a denied command": await unary("RemCmd", { cmd: "rm x" }, token),
    "an unknown method": await unknown("/RS.RemSvc/Nothing"),
    "a message that is too large": await unary("Ping", { data: Buffer.alloc(200000) }, token),
    "a deadline": await unary("RemCmd", { cmd: "sleep 30" }, token, 0.5),
  };
  console.log(JSON.stringify(Object.fromEntries(Object.entries(seen).map(([k, [c, d]]) => [k, [c, d.slice(0, 200), d.length]]))));
  client.close();
}

main();
