/** Where the quotes are, and who reads them. */
export const brokers = (process.env.KAFKA_BOOTSTRAP_SERVERS ?? 'localhost:9092').split(',');
export const topic = process.env.KAFKA_TOPIC ?? 'trading-assets-market-data-v1';
export const groupId = 'quotes-example';
export const PAUSE_MS = 5_000;
