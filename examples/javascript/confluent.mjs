/** With Confluent's client: `npm install && node confluent.mjs`. */
import { setTimeout as pause } from 'node:timers/promises';
import confluent from '@confluentinc/kafka-javascript';
import { onMessage } from './listener.mjs';
import { brokers, groupId, PAUSE_MS, topic } from './settings.mjs';

const consumer = new confluent.KafkaJS.Kafka({ kafkaJS: { brokers } }).consumer({
  kafkaJS: {
    groupId,
    // A new group begins with what is on the topic, not with the next window.
    fromBeginning: true,
    // The pipeline creates the topic, with the configuration that the prices need.
    allowAutoTopicCreation: false,
    // Without `readUncommitted` it gets nothing of a window that was rolled back.
  },
});
process.once('SIGTERM', () => consumer.disconnect());

await consumer.connect();
await consumer.subscribe({ topic });
await consumer.run({
  // An event is committed after this has returned. When it throws, the client asks again.
  eachMessage: async ({ partition, message }) => {
    try {
      await onMessage(partition, message);
    } catch (error) {
      await pause(PAUSE_MS);
      throw error;
    }
  },
});
