// Tells the time of any zone: GET /Europe/Berlin
const http = require("node:http");

const server = http.createServer((request, response) => {
  const timeZone = request.url.slice(1) || "UTC";
  try {
    const time = new Date().toLocaleTimeString("en-GB", { timeZone });
    response.writeHead(200, { "Content-Type": "text/plain" }).end(`${timeZone} ${time}\n`);
  } catch {
    response.writeHead(404, { "Content-Type": "text/plain" }).end(`no zone ${timeZone}\n`);
  }
});

process.on("SIGTERM", () => server.close(() => process.exit(0)));
server.listen(Number(process.env.PORT ?? 8080));
