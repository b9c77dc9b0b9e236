// Makes the user of the pipeline, who may read and write its database and nothing else. The image
// `mongo` runs it once, before there is any data.
db.getSiblingDB('admin').createUser({
  user: 'market_data',
  pwd: process.env.MONGO_PASSWORD,
  roles: [{ role: 'readWrite', db: process.env.MONGO_DB }],
});
