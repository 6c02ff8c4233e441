// A real authorization server that nobody here wrote (panva's certified oidc-provider), on loopback.
//
//     node oidc_provider.mjs '{"accessTokenLife": 60, "refreshTokenLife": 86400, "rotate": true}'
//
// It picks a free port, and prints one line when it answers: {"issuer": "http://127.0.0.1:PORT"}.
// It ends when its standard input does, so that it can't outlive the tests that started it.
//
// With rotation a refresh token works once; presented again it kills its successor and every
// access token of the family. Nothing is forgiven, which makes it the judge of "never lose a grant".
// Whoever logs in is the `login_hint` of the authorization request, and consents to everything.
//
// GET /_counters tells what the token endpoint has seen since the start.
import http from 'node:http';
import Provider from 'oidc-provider';

const {
  accessTokenLife = 60, // seconds
  refreshTokenLife = 86_400,
  rotate = true, // false: as Spotify does for clients with a secret
} = JSON.parse(process.argv[2] ?? '{}');

const SPOTIFY_SCOPES = [
  'user-read-private', 'user-read-email', 'playlist-read-private', 'streaming',
];
const REDIRECT_URI = 'http://127.0.0.1/callback'; // native client, loopback literal: any port

// The adapter that oidc-provider brings forgets beyond 1000 entries: a load test would see grants die.
class Memory {
  static #entries = new Map(); // "Model:id" → { payload, ends }

  static #grants = new Map(); // grant id → keys of what was issued under it

  static #sessions = new Map(); // uid → key

  #model;

  constructor(model) {
    this.#model = model;
  }

  #key(id) {
    return `${this.#model}:${id}`;
  }

  static #read(key) {
    const entry = Memory.#entries.get(key);
    if (entry === undefined) return undefined;
    if (entry.ends < Date.now()) {
      Memory.#entries.delete(key);
      return undefined;
    }
    return { ...entry.payload };
  }

  async upsert(id, payload, life) {
    const key = this.#key(id);
    Memory.#entries.set(key, { payload, ends: life ? Date.now() + life * 1000 : Infinity });
    if (payload.uid) Memory.#sessions.set(payload.uid, key);
    if (payload.grantId) {
      const keys = Memory.#grants.get(payload.grantId) ?? new Set();
      Memory.#grants.set(payload.grantId, keys.add(key));
    }
  }

  async find(id) {
    return Memory.#read(this.#key(id));
  }

  async findByUid(uid) {
    return Memory.#read(Memory.#sessions.get(uid));
  }

  async findByUserCode() {
    return undefined; // the device flow is off
  }

  async consume(id) {
    const entry = Memory.#entries.get(this.#key(id));
    if (entry) entry.payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    Memory.#entries.delete(this.#key(id));
  }

  async revokeByGrantId(grantId) {
    for (const key of Memory.#grants.get(grantId) ?? []) Memory.#entries.delete(key);
    Memory.#grants.delete(grantId);
  }
}

function authorizationServer(issuer) {
  return new Provider(issuer, {
    adapter: Memory,
    clients: [
      {
        client_id: 'public',
        token_endpoint_auth_method: 'none',
        application_type: 'native',
        redirect_uris: [REDIRECT_URI],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
      },
      {
        client_id: 'confidential',
        client_secret: 'the-secret-of-the-confidential-client',
        token_endpoint_auth_method: 'client_secret_basic',
        application_type: 'native',
        redirect_uris: [REDIRECT_URI],
        grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
        response_types: ['code'],
      },
    ],
    scopes: ['openid', 'offline_access', ...SPOTIFY_SCOPES],
    findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    features: { devInteractions: { enabled: false }, clientCredentials: { enabled: true } },
    interactions: { url: (ctx, interaction) => `/_consent/${interaction.uid}` },
    pkce: { required: (ctx, client) => client.clientAuthMethod === 'none' },
    rotateRefreshToken: rotate,
    // As Spotify: a refresh token without asking for offline_access, and independent of the browser.
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    expiresWithSession: async () => false,
    ttl: {
      AccessToken: accessTokenLife,
      AuthorizationCode: 60,
      ClientCredentials: accessTokenLife,
      Grant: refreshTokenLife,
      IdToken: accessTokenLife,
      Interaction: 600,
      RefreshToken: refreshTokenLife,
      Session: 3600,
    },
    cookies: { keys: ['cookies-of-a-test'] },
  });
}

function count(provider) {
  const counters = {
    token_requests: 0,
    codes_redeemed: 0,
    client_credentials: 0,
    refreshes: 0,
    refused: 0, // grants of any kind that were answered with an error
    double_redemptions: 0, // a rotated refresh token that was presented once more
  };
  const granted = {
    authorization_code: 'codes_redeemed',
    client_credentials: 'client_credentials',
    refresh_token: 'refreshes',
  };
  const presented = new Set();
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route !== 'token') return;
    counters.token_requests += 1;
    const { grant_type: grantType, refresh_token: refreshToken } = ctx.oidc.params ?? {};
    counters[ctx.status === 200 ? granted[grantType] : 'refused'] += 1;
    if (rotate && refreshToken) {
      if (presented.has(refreshToken)) counters.double_redemptions += 1;
      presented.add(refreshToken);
    }
  });
  return counters;
}

async function consent(provider, request, response) {
  const { prompt, params, grantId, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const login = { accountId: params.login_hint ?? 'ada' };
    return provider.interactionFinished(request, response, { login });
  }
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = authorizationServer(issuer);
  provider.on('server_error', (ctx, error) => console.error(error));
  const counters = count(provider);
  const answer = provider.callback();
  server.on('request', async (request, response) => {
    try {
      if (request.url === '/_counters') {
        response.setHeader('content-type', 'application/json').end(JSON.stringify(counters));
      } else if (request.url.startsWith('/_consent/')) {
        await consent(provider, request, response);
      } else {
        await answer(request, response);
      }
    } catch (error) {
      console.error(error);
      response.statusCode = 500;
      response.end();
    }
  });
  console.log(JSON.stringify({ issuer }));
});
process.stdin.on('end', () => process.exit(0)).resume();
