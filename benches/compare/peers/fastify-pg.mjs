// Fastify and pg: an upsert for each event.
import Fastify from 'fastify';
import { isSigned, keep } from './receive.mjs';

const app = Fastify();
app.removeAllContentTypeParsers();
app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (req, body, done) => done(null, body));

app.post('/webhooks/nexo', async (req, reply) => {
  if (!isSigned(req.body, req.headers['x-nexo-signature'])) {
    return reply.code(401).type('text/plain').send('bad signature');
  }
  await keep(req.body);
  return reply.type('text/plain').send('ok');
});

await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
