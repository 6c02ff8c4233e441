// An access token from spotokend with Node 18 or newer: `node client.mjs [ACCOUNT [MIN_TTL]]`, or `import { token }`.
// See ../protocol.md. One connection a call, nothing kept or asked again; the path is trusted, integers are exact to 2^53.
import { connect } from "node:net";
import { argv, env, exit, getuid } from "node:process";
const STATUS = { bad_request: 2, unknown_method: 2, misconfigured: 2, login_required: 3, no_daemon: 4, unavailable: 5,
  busy: 5, locked: 5, insufficient_scope: 6, forbidden: 7, unknown_account: 7 }; // of any other code: 1
const failed = (code, words, details = {}) => Object.assign(Error(words), { code, details, status: STATUS[code] ?? 1 });
const bad = (words = "no MessagePack, or an extension type") => { throw new Error(words); };
const LIMIT = 4 * 1024 * 1024, MORE = new Error("more"), utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const isText = (it) => typeof it === "string", areTexts = (it) => Array.isArray(it) && it.every(isText);
const isToken = (it) => areTexts([it?.account, it?.access_token, it?.token_type]) && areTexts(it.scope)
  && Number.isInteger(it.generation) && [it.expires_at, it.expires_boot, it.grant_expires_at ?? 0].every(Number.isFinite);

function answerIn(data) { // the token, or an error that the daemon sent; throws MORE as long as it hasn't come
  let at = 0, begin = 0;
  const take = (size) => {
    if ((at += size) > data.length || at > begin + LIMIT) throw at > begin + LIMIT ? new Error("over 4 MiB") : MORE;
    return data.subarray(at - size, at);
  };
  const int = (size, as = BigInt.asUintN) => Number(as(8 * size, BigInt(`0x${take(size).toString("hex")}`)));
  const text = (size) => utf8.decode(take(size)), array = (length) => Array.from({ length }, () => value());
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [value(), value()]));
  const sized = (sizes, read) => sizes.map((size) => () => read(int(size))); // what follows a number of so many bytes
  const from0xc0 = [() => null, bad, () => false, () => true, ...sized([1, 2, 4], take), bad, bad, bad,
    () => take(4).readFloatBE(), () => take(8).readDoubleBE(), ...sized([1, 2, 4, 8], Number),
    ...[1, 2, 4, 8].map((size) => () => int(size, BigInt.asIntN)), bad, bad, bad, bad, bad,
    ...sized([1, 2, 4], text), ...sized([2, 4], array), ...sized([2, 4], map)];
  const value = (kind = int(1)) => kind < 0x80 ? kind : kind < 0x90 ? map(kind - 0x80) : kind < 0xa0 ? array(kind - 0x90)
    : kind < 0xc0 ? text(kind - 0xa0) : kind < 0xe0 ? from0xc0[kind - 0xc0]() : kind - 0x100;
  for (;; begin = at) {
    const [kind, id, error, result, ...more] = value(); // what isn't there is undefined
    if (kind === 2 && isText(id) && Array.isArray(error) && result === undefined) continue; // a notification
    if (kind !== 1 || id >>> 0 !== id || result === undefined || more.length) bad("no MessagePack-RPC");
    if (id !== 1) continue;
    if (error === null) return isToken(result) ? result : bad("no token");
    const [code, words, details] = Array.isArray(error) && error.length > 1 ? error : ["internal", JSON.stringify(error)];
    throw failed(code, words, Array.isArray(details) ? {} : Object(details));
  }
}

export async function token(account, { minTtl = 0, timeout = 75 } = {}) { // seconds; the map that the daemon sends
  const path = env.SPOTOKEND_SOCK || `${env.XDG_RUNTIME_DIR || `/run/user/${getuid()}`}/spotokend/spotokend.sock`;
  const str = (it) => it ? [0xda, Buffer.byteLength(it) >> 8, Buffer.byteLength(it), ...Buffer.from(it)] : [0xc0]; // nil
  const ttl = Buffer.alloc(9, 0xcb); ttl.writeDoubleBE(minTtl, 1);
  const socket = connect({ path, signal: AbortSignal.timeout(1000 * timeout) });
  socket.write(Buffer.from([0x94, 0, 1, ...str("token"), 0x91, 0x82, ...["account", account, "min_ttl"].flatMap(str), ...ttl]));
  let data = Buffer.alloc(0);
  try {
    for await (const piece of socket)
      try { return answerIn(data = Buffer.concat([data, piece])); } catch (error) { if (error !== MORE) throw error; }
    throw new Error("the connection ended without an answer");
  } catch (error) {
    if (error.status) throw error;
    if (error.name === "AbortError") throw failed("unavailable", `no answer within ${timeout} s`);
    throw failed("no_daemon", `no spotokend answers on ${path}: ${error.message}`, { hint: "start it: spotokend run" });
  }
}
if (new URL(argv[1], "file:").href === import.meta.url)
  token(argv[2] || env.SPOTOKEND_ACCOUNT, { minTtl: argv[3] }).then((it) => console.log(it.access_token),
    (error) => { console.error(error.message, `(${error.details.hint ?? error.code})`); exit(error.status); });
