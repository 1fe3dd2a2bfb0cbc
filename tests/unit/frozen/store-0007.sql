BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0007');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	from_release INTEGER, 
	to_release INTEGER, 
	outcome TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,0.0,'serve config','want',NULL,1,'accepted','set.yaml');
INSERT INTO "audit" VALUES(2,1.70000000000000039968e+00,'serve config','want',1,2,'accepted','set.yaml');
INSERT INTO "audit" VALUES(3,3.50000000000000044408e+00,'ann','rollback',2,1,'accepted','');
INSERT INTO "audit" VALUES(4,3.70000000000000062172e+00,'serve config','want',1,3,'accepted','set.yaml');
INSERT INTO "audit" VALUES(5,5.79999999999999360511e+00,'serve config','want',1,4,'refused: invalid_model_set','set.yaml: set.yaml: chainz: unknown key; did you mean ''chains''?');
INSERT INTO "audit" VALUES(6,5.89999999999999324984e+00,'serve config','want',1,5,'accepted','set.yaml');
INSERT INTO "audit" VALUES(7,7.59999999999997477573e+00,'ann','promote',1,5,'accepted','');
INSERT INTO "audit" VALUES(8,1.07699999999999974421e+02,'serve config','want',5,6,'accepted','set.yaml');
INSERT INTO "audit" VALUES(9,1.07799999999999968731e+02,'ann','abort',5,6,'accepted','');
INSERT INTO "audit" VALUES(10,2.07799999999999954517e+02,'serve config','want',5,7,'accepted','set.yaml');
INSERT INTO "audit" VALUES(11,3.0049999999999988632e+02,'serve config','want',7,8,'accepted','set.yaml');
INSERT INTO "audit" VALUES(12,1.79587029750369262699e+09,'ann','set_budget',NULL,NULL,'accepted','tenant acme: hard budget of 5000 tokens per month');
INSERT INTO "audit" VALUES(13,1.79587029750468420985e+09,'ann','set_budget',NULL,NULL,'accepted','tenant acme: hard budget of 500 tokens in total, of each request by itself');
INSERT INTO "audit" VALUES(14,1.79587029750552940369e+09,'ann','set_budget',NULL,NULL,'accepted','tenant acme, key k1: hard budget of 1 cost per day');
INSERT INTO "audit" VALUES(15,1790000000.0,'ann','create_key',NULL,NULL,'accepted','k1');
INSERT INTO "audit" VALUES(16,1790000000.0,'ann','create_key',NULL,NULL,'accepted','k2');
INSERT INTO "audit" VALUES(17,1790000001.0,'ann','revoke_key',NULL,NULL,'accepted','k2');
CREATE TABLE caps (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	per TEXT NOT NULL, 
	unit TEXT NOT NULL, 
	window TEXT NOT NULL, 
	"limit" BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	hard BOOLEAN NOT NULL, 
	CONSTRAINT one_cap UNIQUE (tenant, "key", per, unit, window)
);
INSERT INTO "caps" VALUES(1,'acme','','tenant','tokens','month',5000,'budget',1);
INSERT INTO "caps" VALUES(2,'acme','','request','tokens','total',500,'budget',1);
INSERT INTO "caps" VALUES(3,'acme','k1','tenant','cost','day',1000000000,'budget',1);
CREATE TABLE counters (
	cap INTEGER NOT NULL, 
	subject TEXT NOT NULL, 
	window BIGINT NOT NULL, 
	spent BIGINT NOT NULL, 
	reserved BIGINT NOT NULL, warned INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (cap, subject, window)
);
INSERT INTO "counters" VALUES(1,'acme',1788220800,150,100,0);
INSERT INTO "counters" VALUES(2,'r0',0,50,0,0);
INSERT INTO "counters" VALUES(3,'acme',1789948800,195,10,0);
INSERT INTO "counters" VALUES(2,'r1',0,50,0,0);
INSERT INTO "counters" VALUES(2,'r2',0,50,0,0);
INSERT INTO "counters" VALUES(2,'r3',0,0,100,0);
CREATE TABLE epoch (
	id INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "epoch" VALUES(1,1);
CREATE TABLE journal (
	revision INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	event TEXT NOT NULL, 
	PRIMARY KEY (revision)
);
INSERT INTO "journal" VALUES(1,1,'{"at":0.0,"type":"wanted","change":"change-1","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"0.1s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v1-","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v1","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[4],"prompt_tokens":[],"timeout":"300s"},"rollback_window":"3600s","strategy":"beside","cutover":"automatic"},"weights":{},"digest":"d7d8c7519ac69f793f22d960b06f32fa0c62da2e96e34bf1042ded341eb95a09","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}}}');
INSERT INTO "journal" VALUES(2,1,'{"at":0.0,"type":"release_planned","release":1,"plan":{"fits":true,"strategy":"beside","cost":"both releases are resident; live in about 70 s; no request waits","warmup_tokens":1501,"pause_s":null,"reused":[],"loaded":[{"name":"router","digest":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]},{"name":"writer","digest":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":[],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(3,1,'{"at":0.0,"type":"release_moved","release":1,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(4,1,'{"at":0.25,"type":"engine_loaded","engine":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","seconds":0.25}');
INSERT INTO "journal" VALUES(5,1,'{"at":0.25,"type":"engine_loaded","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112","seconds":0.25}');
INSERT INTO "journal" VALUES(6,1,'{"at":0.25,"type":"release_moved","release":1,"move":"loaded","reason":null}');
INSERT INTO "journal" VALUES(7,1,'{"at":1.665,"type":"release_warmed","release":1,"usage":[56,119,0,0],"answers":{"chains.agent.samples[0].answer":["v1-0 v1-1 v1-2 v1-3 v1-4 v1-5 v1-6 v1-7 "],"chains.agent.samples[0].triage":["a"]},"seconds":1.415}');
INSERT INTO "journal" VALUES(8,1,'{"at":1.665,"type":"release_moved","release":1,"move":"verified","reason":null}');
INSERT INTO "journal" VALUES(9,1,'{"at":1.665,"type":"release_moved","release":1,"move":"promote","reason":null}');
INSERT INTO "journal" VALUES(10,1,'{"at":1.7000000000000004,"type":"wanted","change":"change-2","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"0.1s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v2-","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":{"prompt":"1","cached":null,"completion":"2"},"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v2","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[2],"prompt_tokens":[8],"timeout":"300s"},"rollback_window":"3600s","strategy":"beside","cutover":"automatic"},"weights":{},"digest":"57e501e23cd657f32ce624c198aebf4395e3a74ab33ebff670508c4c921317e3","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"05329587af9fdf3231de5b6943947dc2cfcde4842036af3287abed10cdbd39f9"}}}');
INSERT INTO "journal" VALUES(11,1,'{"at":1.7000000000000004,"type":"release_planned","release":2,"plan":{"fits":true,"strategy":"beside","cost":"both releases are resident; live in about 2 s; no request waits","warmup_tokens":1236,"pause_s":null,"reused":["router"],"loaded":[{"name":"writer","digest":"05329587af9fdf3231de5b6943947dc2cfcde4842036af3287abed10cdbd39f9","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":["7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(12,1,'{"at":1.7000000000000004,"type":"release_moved","release":2,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(13,1,'{"at":1.9500000000000004,"type":"engine_loaded","engine":"05329587af9fdf3231de5b6943947dc2cfcde4842036af3287abed10cdbd39f9","seconds":0.25}');
INSERT INTO "journal" VALUES(14,1,'{"at":1.9500000000000004,"type":"release_moved","release":2,"move":"loaded","reason":null}');
INSERT INTO "journal" VALUES(15,1,'{"at":3.4149999999999996,"type":"release_warmed","release":2,"usage":[52,80,0,0],"answers":{"chains.agent.samples[0].answer":["v2-0 v2-1 v2-2 v2-3 v2-4 v2-5 v2-6 v2-7 "],"chains.agent.samples[0].triage":["a"]},"seconds":1.4649999999999992}');
INSERT INTO "journal" VALUES(16,1,'{"at":3.4149999999999996,"type":"release_moved","release":2,"move":"verified","reason":null}');
INSERT INTO "journal" VALUES(17,1,'{"at":3.4149999999999996,"type":"release_moved","release":2,"move":"promote","reason":null}');
INSERT INTO "journal" VALUES(18,1,'{"at":3.4149999999999996,"type":"release_idle","release":1}');
INSERT INTO "journal" VALUES(19,1,'{"at":3.4149999999999996,"type":"engine_sleeping","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}');
INSERT INTO "journal" VALUES(20,1,'{"at":3.4149999999999996,"type":"engine_slept","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}');
INSERT INTO "journal" VALUES(21,1,'{"at":3.5000000000000004,"type":"commanded","action":"rollback","actor":"ann","release":1,"live":2}');
INSERT INTO "journal" VALUES(22,1,'{"at":3.5000000000000004,"type":"engine_waking","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}');
INSERT INTO "journal" VALUES(23,1,'{"at":3.5000000000000004,"type":"engine_woken","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}');
INSERT INTO "journal" VALUES(24,1,'{"at":3.6950000000000003,"type":"release_probed","release":1,"usage":[6,8,0,0]}');
INSERT INTO "journal" VALUES(25,1,'{"at":3.6950000000000003,"type":"release_moved","release":1,"move":"promote","reason":null}');
INSERT INTO "journal" VALUES(26,1,'{"at":3.6950000000000003,"type":"release_idle","release":2}');
INSERT INTO "journal" VALUES(27,1,'{"at":3.6950000000000003,"type":"engine_sleeping","engine":"05329587af9fdf3231de5b6943947dc2cfcde4842036af3287abed10cdbd39f9"}');
INSERT INTO "journal" VALUES(28,1,'{"at":3.6950000000000003,"type":"engine_slept","engine":"05329587af9fdf3231de5b6943947dc2cfcde4842036af3287abed10cdbd39f9"}');
INSERT INTO "journal" VALUES(29,1,'{"at":3.7000000000000006,"type":"wanted","change":"change-3","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"3600s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v3-","fail":null,"deployment_config":{},"load_timeout":"2s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v3","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[4],"prompt_tokens":[],"timeout":"300s"},"rollback_window":"3600s","strategy":"beside","cutover":"automatic"},"weights":{},"digest":"29e6d3cb780543cbe6f7c11a8356991c5028539995e2345f4eb8186c75bc314a","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"2e940155c35f9b6799bcc07cd61e6907ab7fc6f1b78084d348895571ab7eacac"}}}');
INSERT INTO "journal" VALUES(30,1,'{"at":3.7000000000000006,"type":"release_planned","release":3,"plan":{"fits":true,"strategy":"beside","cost":"both releases are resident; live in about 2 s; no request waits","warmup_tokens":1501,"pause_s":null,"reused":["router"],"loaded":[{"name":"writer","digest":"2e940155c35f9b6799bcc07cd61e6907ab7fc6f1b78084d348895571ab7eacac","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":["7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(31,1,'{"at":3.7000000000000006,"type":"release_moved","release":3,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(32,1,'{"at":5.699999999999994,"type":"engine_failed","engine":"2e940155c35f9b6799bcc07cd61e6907ab7fc6f1b78084d348895571ab7eacac","reason":"engine did not come up within 2 s (load_timeout)"}');
INSERT INTO "journal" VALUES(33,1,'{"at":5.699999999999994,"type":"release_moved","release":3,"move":"unload","reason":null}');
INSERT INTO "journal" VALUES(34,1,'{"at":5.699999999999994,"type":"engine_released","engine":"2e940155c35f9b6799bcc07cd61e6907ab7fc6f1b78084d348895571ab7eacac"}');
INSERT INTO "journal" VALUES(35,1,'{"at":5.699999999999994,"type":"engine_unloaded","engine":"2e940155c35f9b6799bcc07cd61e6907ab7fc6f1b78084d348895571ab7eacac"}');
INSERT INTO "journal" VALUES(36,1,'{"at":5.699999999999994,"type":"release_moved","release":3,"move":"unloaded","reason":null}');
INSERT INTO "journal" VALUES(37,1,'{"at":5.799999999999994,"type":"refused","change":"change-4","source":"set.yaml","reason":"set.yaml: chainz: unknown key; did you mean ''chains''?"}');
INSERT INTO "journal" VALUES(38,1,'{"at":5.799999999999994,"type":"release_moved","release":4,"move":"unload","reason":null}');
INSERT INTO "journal" VALUES(39,1,'{"at":5.799999999999994,"type":"release_moved","release":4,"move":"unloaded","reason":null}');
INSERT INTO "journal" VALUES(40,1,'{"at":5.899999999999993,"type":"wanted","change":"change-5","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"0.1s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v5-","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v5","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[4],"prompt_tokens":[],"timeout":"300s"},"rollback_window":"60s","strategy":"beside","cutover":"manual"},"weights":{},"digest":"df00d012a2d46a0e62ef8f82950bee4b300af555f67866bf25cf60d6b1ae9fd9","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"}}}');
INSERT INTO "journal" VALUES(41,1,'{"at":5.899999999999993,"type":"release_planned","release":5,"plan":{"fits":true,"strategy":"beside","cost":"both releases are resident; live in about 2 s; no request waits","warmup_tokens":1501,"pause_s":null,"reused":["router"],"loaded":[{"name":"writer","digest":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":["7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(42,1,'{"at":5.899999999999993,"type":"release_moved","release":5,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(43,1,'{"at":6.149999999999993,"type":"engine_loaded","engine":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5","seconds":0.25}');
INSERT INTO "journal" VALUES(44,1,'{"at":6.149999999999993,"type":"release_moved","release":5,"move":"loaded","reason":null}');
INSERT INTO "journal" VALUES(45,1,'{"at":7.564999999999969,"type":"release_warmed","release":5,"usage":[56,119,0,0],"answers":{"chains.agent.samples[0].answer":["v5-0 v5-1 v5-2 v5-3 v5-4 v5-5 v5-6 v5-7 "],"chains.agent.samples[0].triage":["a"]},"seconds":1.414999999999976}');
INSERT INTO "journal" VALUES(46,1,'{"at":7.564999999999969,"type":"release_moved","release":5,"move":"verified","reason":null}');
INSERT INTO "journal" VALUES(47,1,'{"at":7.599999999999975,"type":"commanded","action":"promote","actor":"ann","release":5,"live":1}');
INSERT INTO "journal" VALUES(48,1,'{"at":7.599999999999975,"type":"release_moved","release":5,"move":"promote","reason":null}');
INSERT INTO "journal" VALUES(49,1,'{"at":7.599999999999975,"type":"release_idle","release":1}');
INSERT INTO "journal" VALUES(50,1,'{"at":7.599999999999975,"type":"engine_sleeping","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}');
INSERT INTO "journal" VALUES(51,1,'{"at":7.599999999999975,"type":"engine_slept","engine":"7407495b28c568273ca6c81054a8aecb63706e6bc06ab91f3522afd4b5611112"}');
INSERT INTO "journal" VALUES(52,1,'{"at":107.69999999999997,"type":"wanted","change":"change-6","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"20s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v6-","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v6","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[4],"prompt_tokens":[],"timeout":"300s"},"rollback_window":"60s","strategy":"beside","cutover":"automatic"},"weights":{},"digest":"685905bc4dffc2c4cf2598a461ce9f83c25f5ae95de1832ef723c749185dee28","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"d82e69e8bce1631ba553ce5df9431e97987b7e14307f5d84eb30417e347f2fa8"}}}');
INSERT INTO "journal" VALUES(53,1,'{"at":107.69999999999997,"type":"release_planned","release":6,"plan":{"fits":true,"strategy":"beside","cost":"both releases are resident; live in about 2 s; no request waits","warmup_tokens":1501,"pause_s":null,"reused":["router"],"loaded":[{"name":"writer","digest":"d82e69e8bce1631ba553ce5df9431e97987b7e14307f5d84eb30417e347f2fa8","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":["9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(54,1,'{"at":107.69999999999997,"type":"release_moved","release":6,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(55,1,'{"at":107.79999999999997,"type":"commanded","action":"abort","actor":"ann","release":6,"live":5}');
INSERT INTO "journal" VALUES(56,1,'{"at":107.79999999999997,"type":"release_moved","release":6,"move":"unload","reason":null}');
INSERT INTO "journal" VALUES(57,1,'{"at":107.79999999999997,"type":"engine_released","engine":"d82e69e8bce1631ba553ce5df9431e97987b7e14307f5d84eb30417e347f2fa8"}');
INSERT INTO "journal" VALUES(58,1,'{"at":107.79999999999997,"type":"engine_unloaded","engine":"d82e69e8bce1631ba553ce5df9431e97987b7e14307f5d84eb30417e347f2fa8"}');
INSERT INTO "journal" VALUES(59,1,'{"at":107.79999999999997,"type":"release_moved","release":6,"move":"unloaded","reason":null}');
INSERT INTO "journal" VALUES(60,1,'{"at":207.79999999999995,"type":"wanted","change":"change-7","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"0.1s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v7-","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v7","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[4],"prompt_tokens":[],"timeout":"300s"},"rollback_window":"5s","strategy":"sleep_live","cutover":"automatic"},"weights":{},"digest":"8bf47c6c76b7e413d4dfc0b505c63f975286e6fa1f19ec0307b9c472055e1db2","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc"}}}');
INSERT INTO "journal" VALUES(61,1,'{"at":207.79999999999995,"type":"release_planned","release":7,"plan":{"fits":true,"strategy":"sleep_live","cost":"new requests wait for about 7 s while the live engines sleep","warmup_tokens":1501,"pause_s":6.664999999999976,"reused":["router"],"loaded":[{"name":"writer","digest":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":["9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(62,1,'{"at":207.79999999999995,"type":"release_moved","release":7,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(63,1,'{"at":207.79999999999995,"type":"engine_sleeping","engine":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"}');
INSERT INTO "journal" VALUES(64,1,'{"at":207.79999999999995,"type":"engine_slept","engine":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"}');
INSERT INTO "journal" VALUES(65,1,'{"at":208.04999999999995,"type":"engine_loaded","engine":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc","seconds":0.25}');
INSERT INTO "journal" VALUES(66,1,'{"at":208.04999999999995,"type":"release_moved","release":7,"move":"loaded","reason":null}');
INSERT INTO "journal" VALUES(67,1,'{"at":209.4650000000001,"type":"release_warmed","release":7,"usage":[56,119,0,0],"answers":{"chains.agent.samples[0].answer":["v7-0 v7-1 v7-2 v7-3 v7-4 v7-5 v7-6 v7-7 "],"chains.agent.samples[0].triage":["a"]},"seconds":1.4150000000001342}');
INSERT INTO "journal" VALUES(68,1,'{"at":209.4650000000001,"type":"release_moved","release":7,"move":"verified","reason":null}');
INSERT INTO "journal" VALUES(69,1,'{"at":209.4650000000001,"type":"release_moved","release":7,"move":"promote","reason":null}');
INSERT INTO "journal" VALUES(70,1,'{"at":209.4650000000001,"type":"release_idle","release":5}');
INSERT INTO "journal" VALUES(71,1,'{"at":240.49999999999986,"type":"engine_missing","engine":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc"}');
INSERT INTO "journal" VALUES(72,1,'{"at":240.49999999999986,"type":"engine_found","engine":"7a112ec07c4b"}');
INSERT INTO "journal" VALUES(73,1,'{"at":240.49999999999986,"type":"engine_unloaded","engine":"7a112ec07c4b"}');
INSERT INTO "journal" VALUES(74,1,'{"at":240.74999999999986,"type":"engine_loaded","engine":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc","seconds":0.25}');
INSERT INTO "journal" VALUES(75,1,'{"at":242.16500000000045,"type":"release_warmed","release":7,"usage":[56,119,0,0],"answers":{"chains.agent.samples[0].answer":["v7-0 v7-1 v7-2 v7-3 v7-4 v7-5 v7-6 v7-7 "],"chains.agent.samples[0].triage":["a"]},"seconds":1.415000000000589}');
INSERT INTO "journal" VALUES(76,1,'{"at":269.4650000000001,"type":"deadline_passed","release":5,"reason":"rollback window is over"}');
INSERT INTO "journal" VALUES(77,1,'{"at":269.4650000000001,"type":"engine_released","engine":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"}');
INSERT INTO "journal" VALUES(78,1,'{"at":269.4650000000001,"type":"engine_unloaded","engine":"9570f366c7961da17e3cf08fbe313b2f8f11e3b303c7f3aa4a38b80362b8cec5"}');
INSERT INTO "journal" VALUES(79,1,'{"at":269.4650000000001,"type":"release_moved","release":5,"move":"unloaded","reason":null}');
INSERT INTO "journal" VALUES(80,1,'{"at":300.4999999999999,"type":"wanted","change":"change-8","source":"set.yaml","content":{"model_set":{"name":"support","engines":{"router":{"kind":"fake","load":"0s","ping":"0s","time_to_first_token":"0.005s","inter_token":"0s","tokens":8,"context_length":4096,"reply":"word","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null},"writer":{"kind":"fake","load":"0.1s","ping":"0s","time_to_first_token":"0.05s","inter_token":"0.02s","tokens":20,"context_length":4096,"reply":"v8-","fail":null,"deployment_config":{},"load_timeout":"60s","memory":{"weights":null,"kv_cache":null,"overhead":null},"price":null,"device":"cpu","shards":1,"sleeps":true,"sleep":"0s","wake":"0s","slept_reply":null,"receipts":null}},"chains":{"agent":{"deadline":"30s","steps":[{"id":"triage","route":{"engine":"router","choices":{"a":["bill"],"b":["bug"]}},"generate":null},{"id":"answer","route":null,"generate":{"engine":"writer","prompt":"{{ steps.triage.choice }} v8","sampling":{}}}],"answer":"answer","samples":[{"messages":[{"role":"user","content":"my bill"}],"params":{}}],"max_tokens":1024,"degrade_to":null,"latency_budget":{}}},"warmup":{"at_once":[4],"prompt_tokens":[],"timeout":"300s"},"rollback_window":"5s","strategy":"beside","cutover":"automatic"},"weights":{},"digest":"e6b2b05f8a056d26278398297a2537b71065243afad2e3a18357ef17164c52e4","engines":{"router":"69721ac62ec615b4c07b3010a8a2393391327eac386c13170d0d8f39096afcc3","writer":"ace88f1d29eab25f126fe79d7c4958c037082c60d7c7388f510f2088f5233387"}}}');
INSERT INTO "journal" VALUES(81,1,'{"at":300.4999999999999,"type":"release_planned","release":8,"plan":{"fits":true,"strategy":"beside","cost":"both releases are resident; live in about 2 s; no request waits","warmup_tokens":1501,"pause_s":null,"reused":["router"],"loaded":[{"name":"writer","digest":"ace88f1d29eab25f126fe79d7c4958c037082c60d7c7388f510f2088f5233387","kind":"fake","replicas":1,"devices_per_replica":1,"footprint":{"weights":0,"kv_cache":0,"overhead":0},"placement":["memory"]}],"unloaded":["739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc"],"devices":[{"device":"memory","total":1125899906842624,"free":1125899906842624,"freed":0,"needed":0}],"gpus":null}}');
INSERT INTO "journal" VALUES(82,1,'{"at":300.4999999999999,"type":"release_moved","release":8,"move":"load","reason":null}');
INSERT INTO "journal" VALUES(83,1,'{"at":300.7499999999999,"type":"engine_loaded","engine":"ace88f1d29eab25f126fe79d7c4958c037082c60d7c7388f510f2088f5233387","seconds":0.25}');
INSERT INTO "journal" VALUES(84,1,'{"at":300.7499999999999,"type":"release_moved","release":8,"move":"loaded","reason":null}');
INSERT INTO "journal" VALUES(85,1,'{"at":302.164999999999,"type":"release_warmed","release":8,"usage":[56,119,0,0],"answers":{"chains.agent.samples[0].answer":["v8-0 v8-1 v8-2 v8-3 v8-4 v8-5 v8-6 v8-7 "],"chains.agent.samples[0].triage":["a"]},"seconds":1.414999999999111}');
INSERT INTO "journal" VALUES(86,1,'{"at":302.164999999999,"type":"release_moved","release":8,"move":"verified","reason":null}');
INSERT INTO "journal" VALUES(87,1,'{"at":302.164999999999,"type":"release_moved","release":8,"move":"promote","reason":null}');
INSERT INTO "journal" VALUES(88,1,'{"at":302.164999999999,"type":"release_idle","release":7}');
INSERT INTO "journal" VALUES(89,1,'{"at":302.164999999999,"type":"engine_sleeping","engine":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc"}');
INSERT INTO "journal" VALUES(90,1,'{"at":302.164999999999,"type":"engine_slept","engine":"739568c1cb4d777ca9fbaff9cb1504471dd0b03cea4b29d076f0eb264fc0e3bc"}');
CREATE TABLE keys (
	id TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	prefix TEXT NOT NULL, 
	tenant TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created FLOAT NOT NULL, 
	revoked FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "keys" VALUES('k1','268b88f60bc35917cd5585c6d661c6e0ccc691856d1b3f588884dc47eb557b49','il-froz','acme','laptop',1790000000.0,NULL);
INSERT INTO "keys" VALUES('k2','81236e2cdbb0532f64f34967965613f187aeedca4d8ff77b98dec10601fc360d','il-othe','acme','old',1790000000.0,1790000001.0);
CREATE TABLE ledger (
	hop TEXT NOT NULL, 
	request TEXT NOT NULL, 
	request_id TEXT NOT NULL, 
	tenant TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	session TEXT NOT NULL, 
	chain TEXT NOT NULL, 
	step TEXT NOT NULL, 
	release INTEGER NOT NULL, 
	engine TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	started FLOAT NOT NULL, 
	admitted FLOAT NOT NULL, 
	prompt BIGINT NOT NULL, 
	cached BIGINT NOT NULL, 
	completion BIGINT NOT NULL, 
	reasoning BIGINT NOT NULL, 
	outcome TEXT NOT NULL, 
	queue_ms FLOAT, 
	ttft_ms FLOAT, 
	duration_ms FLOAT NOT NULL, prompt_price BIGINT DEFAULT '0' NOT NULL, cached_price BIGINT DEFAULT '0' NOT NULL, completion_price BIGINT DEFAULT '0' NOT NULL, cost BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (hop)
);
INSERT INTO "ledger" VALUES('hop0','r0','mine','acme','k1','s','agent','answer',8,'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','live',1790000000.0,1790000000.0,30,5,20,0,'ok',1.0,2.0,5.0,1000,0,2000,65);
INSERT INTO "ledger" VALUES('hop1','r1','mine','acme','k1','s','agent','answer',8,'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','live',1790000001.0,1790000000.0,30,5,20,0,'ok',1.0,2.0,5.0,1000,0,2000,65);
INSERT INTO "ledger" VALUES('hop2','r2','mine','acme','k1','s','agent','answer',8,'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','live',1790000002.0,1790000000.0,30,5,20,0,'ok',1.0,2.0,5.0,1000,0,2000,65);
CREATE TABLE metrics (
	id INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	counts BLOB NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "metrics" VALUES(1,1,X'780175CE410A83301085E1AB94B74EC574E929BA972043186D501349468A84DCBDD1AEBAE86A36F33EFE8C31C495049D56481C1D27747D0FE785E312EC3C6C31AC9B0C1266F6A91EA105AA877D91F350A089BDC018A330D2EA960BC8FFF6D5860DFB89D7EDF3A26F5FBA81CA686BC7A36DDA624ACD097BB4674FC644C26F3AEEBA02FAF7AF7C008E4242E2');
CREATE TABLE reservations (
	call TEXT NOT NULL, 
	cap INTEGER NOT NULL, 
	subject TEXT NOT NULL, 
	window BIGINT NOT NULL, 
	amount BIGINT NOT NULL, 
	expires FLOAT NOT NULL, 
	PRIMARY KEY (call, cap, subject, window)
);
INSERT INTO "reservations" VALUES('r3',1,'acme',1788220800,100,1790000060.0);
INSERT INTO "reservations" VALUES('r3',2,'r3',0,100,1790000060.0);
INSERT INTO "reservations" VALUES('r3',3,'acme',1789948800,10,1790000060.0);
CREATE INDEX ix_ledger_started ON ledger (started);
CREATE INDEX ix_reservations_expires ON reservations (expires);
CREATE UNIQUE INDEX keys_digest ON keys (digest);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('caps',3);
COMMIT;
