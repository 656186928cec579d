import io.kroxylicious.kms.provider.kroxylicious.inmemory.IntegrationTestingKmsService;
import io.kroxylicious.proxy.KafkaProxy;
import io.kroxylicious.proxy.config.ConfigParser;
import io.kroxylicious.proxy.internal.config.Features;
import java.nio.file.Files;
import java.nio.file.Path;

/** Starts Kroxylicious with a configuration file, and makes the key "bench" in the in-memory KMS "bench". */
public class Launcher {
    public static void main(String[] args) throws Exception {
        var service = IntegrationTestingKmsService.newInstance();
        service.initialize(new IntegrationTestingKmsService.Config("bench"));
        var kms = service.buildKms();
        kms.createAlias(kms.generateKey(), "bench");
        var parser = new ConfigParser();
        var config = parser.parseConfiguration(Files.readString(Path.of(args[0])));
        try (var proxy = new KafkaProxy(parser, config, Features.defaultFeatures())) {
            proxy.startup();
            System.out.println("Kroxylicious started");
            proxy.block();
        }
    }
}
