# The peer that tests/bench compares with, fetched once into build/deps (see tests/e2e/deps.mk).

.PHONY: deps-kroxylicious
deps-kroxylicious: $(DEPS)/kroxylicious.stamp

# Kroxylicious 0.12.0, the newest on Maven, and what starts it.
$(DEPS)/kroxylicious.stamp: $(wildcard tests/bench/stand/kroxylicious/*)
	@echo "deps: Kroxylicious jars (about 40 MB) -> $(DEPS)/kroxylicious"
	@rm -rf $(DEPS)/kroxylicious $(DEPS)/kroxylicious.part && mkdir -p $(DEPS)/kroxylicious.part
	@mvn -B -q -Dstyle.color=never -f tests/bench/stand/kroxylicious/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(DEPS)/kroxylicious.part
	@javac -nowarn -d $(DEPS)/kroxylicious.part -cp '$(DEPS)/kroxylicious.part/*' tests/bench/stand/kroxylicious/Launcher.java
	@mv $(DEPS)/kroxylicious.part $(DEPS)/kroxylicious && touch $@
