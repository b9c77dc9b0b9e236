/** With kafkajs: `npm install && node kafkajs.mjs`. Of compressed events it reads gzip only. */
import { setTimeout as pause } from 'node:timers/promises';
import { Kafka } from 'kafkajs';
import { onMessage } from './listener.mjs';
import { brokers, groupId, PAUSE_MS, topic } from './settings.mjs';

const stopping = new AbortController();
// It shows nothing of a window that was rolled back unless it is told to (`readUncommitted`). The
// pipeline creates the topic, with the configuration that the prices need.
const consumer = new Kafka({ brokers }).consumer({ groupId, allowAutoTopicCreation: false });
process.once('SIGTERM', () => {
  stopping.abort();
  consumer.disconnect();
});
// Where it gives up, it ends, to be started again.
consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || process.exit(1));

await consumer.connect();
// A new group begins with what is on the topic, not with the next window.
await consumer.subscribe({ topic, fromBeginning: true });
await consumer.run({
  // An event is committed when this has returned; until then it is handled again.
  eachMessage: async ({ partition, message, heartbeat }) => {
    for (;;) {
      try {
        return await onMessage(partition, message);
      } catch (error) {
        console.error(`not handled, again in ${PAUSE_MS} ms:`, error);
      }
      await pause(PAUSE_MS, undefined, { signal: stopping.signal });
      await heartbeat();
    }
  },
});
