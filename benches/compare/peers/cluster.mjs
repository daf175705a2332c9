// A script on two processes that share its port.
import cluster from 'node:cluster';

cluster.setupPrimary({ exec: new URL(process.argv[2], import.meta.url).pathname });
cluster.fork();
cluster.fork();

// Ends with whoever started it.
process.stdin.resume().on('end', () => process.exit());
