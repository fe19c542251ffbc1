// A function as `kn func create -l node` makes it; with faas-js-runtime among the dependencies of
// package.json that serves it, without it knlocal's own small launcher does.
const handle = async (context, body) => {
  const name = context.query.name ?? body?.name ?? "stranger";
  return { greeting: `${process.env.GREETING}, ${name}` };
};

module.exports = { handle };
